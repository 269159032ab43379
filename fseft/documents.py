"""Reads JSON against a schema: any problem is one line with file, key, cause and remedy."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from fseft.errors import FseftError, describe_validation

if TYPE_CHECKING:
    from pathlib import Path

_ADAPTER = lru_cache(TypeAdapter[Any])
_MAX_LENGTH = 60  # characters of a value in a message


def read_json(path: Path, schema: Any, *, name: str, hint: str) -> Any:
    """Reads a JSON file.

    Args:
        path: The file.
        schema: A pydantic model, or any other type that pydantic validates.
        name: What the file is, for messages: "index of predictions".
        hint: Remedy for a file that is damaged.

    Returns:
        The content, as an instance of `schema`.

    Raises:
        FseftError: The file cannot be read, is not JSON, or its content does not fit the schema.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        cause = f"the {name} cannot be read ({error.strerror or error})"
        raise FseftError(cause, file=path, hint="Check the path and its permissions.") from error
    return parse_json(_without_mark(content), schema, name=name, hint=hint, file=path)


def _without_mark(content: bytes) -> bytes:
    """Returns UTF-8 without a byte order mark, which editors of Windows write, also as UTF-16."""
    encoding = json.detect_encoding(content)
    if encoding == "utf-8":
        return content
    return content.decode(encoding, errors="replace").encode()


def parse_json(
    content: bytes | str, schema: Any, *, name: str, hint: str, file: Path | str | None = None
) -> Any:
    """Parses JSON text, as `read_json` parses a file.

    Args:
        content: JSON text, as UTF-8 if it is bytes.
        schema: A pydantic model, or any other type that pydantic validates.
        name: What the content is, for messages: "index of predictions".
        hint: Remedy for invalid content.
        file: File that the content is from, for messages.

    Returns:
        The content, as an instance of `schema`.

    Raises:
        FseftError: The content is not JSON, or does not fit the schema.

    Examples:
        >>> parse_json('{"liver": 1}', dict[str, int], name="list of labels", hint="Repair it.")
        {'liver': 1}
        >>> parse_json('{"liver": "x"}', dict[str, int], name="list of labels", hint="Repair it.")
        Traceback (most recent call last):
        fseft.errors.FseftError: is not a valid list of labels (liver: must be a whole number, got \
'x'). Repair it.
    """
    try:
        return _ADAPTER(schema).validate_json(content)
    except ValidationError as error:
        raise _error(error, name, hint, file) from error


def validate(
    content: object, schema: Any, *, name: str, hint: str, file: Path | str | None = None
) -> Any:
    """Validates content that was read already, with the same errors as `parse_json`.

    Args:
        content: Python objects, as JSON would contain them.
        schema: A pydantic model, or any other type that pydantic validates.
        name: What the content is, for messages: "index of predictions".
        hint: Remedy for invalid content.
        file: File that the content is from, for messages.

    Returns:
        The content, as an instance of `schema`.

    Raises:
        FseftError: The content does not fit the schema.
    """
    try:
        return _ADAPTER(schema).validate_python(content)
    except ValidationError as error:
        raise _error(error, name, hint, file) from error


def _error(error: ValidationError, name: str, hint: str, file: Path | str | None) -> FseftError:
    """Describes the first problem by its key, its value and its cause."""
    problem = error.errors()[0]
    if problem["type"] == "json_invalid":
        reason = problem["msg"].removeprefix("Invalid JSON: ")
        return FseftError(f"is not valid JSON ({reason})", file=file, hint=hint)
    reason = describe_validation(error)
    if problem["loc"] and not isinstance(problem["input"], dict | list):
        reason += f", got {_shortened(problem['input'])}"
    return FseftError(f"is not a valid {name} ({reason})", file=file, hint=hint)


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_LENGTH else f"{text[:_MAX_LENGTH]}..."
