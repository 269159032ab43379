"""`--set key=value`: keys of the method's configuration and of the training recipe, or a preset of both."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from fseft.errors import FseftError, did_you_mean
from fseft.training_config import TrainingConfig

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fseft.plugin import Config, MethodSpec
    from fseft.schemas import FrozenModel, PartMode


PRESET = "preset"


def split_settings(
    spec: MethodSpec, settings: Iterable[str], decoder: PartMode = "frozen"
) -> tuple[Config, TrainingConfig]:
    """The method's configuration and the recipe; a key of both means the method's.

    Args:
        spec: The method.
        settings: Each `key=value`; the preset comes first, wherever it stands.
        decoder: Presets may differ where it is trained.

    Raises:
        FseftError: No `key=value`, an unknown key (with the nearest ones), or a value that does not fit.
    """
    given: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise FseftError(
                f"--set {setting!r} is no key=value", hint="Write for example --set rank=4."
            )
        if key != PRESET:
            model = _owner(spec, key)
            key = model.current_name(key)
            value = _parsed(model, key, value)
        given[key] = value
    if PRESET in given:
        given = {**_preset(spec, given.pop(PRESET), decoder), **given}
    method = {key: value for key, value in given.items() if key in spec.config.model_fields}
    recipe = {key: value for key, value in given.items() if key not in method}
    return _validated(spec, spec.config, method), _validated(spec, TrainingConfig, recipe)


def _owner(spec: MethodSpec, key: str) -> type[FrozenModel]:
    """Whose key it is."""
    for model in (spec.config, TrainingConfig):
        if model.current_name(key) in model.model_fields:
            return model
    known = [*spec.config.model_fields, *TrainingConfig.model_fields, PRESET]
    raise FseftError(
        f"the method {spec.name!r} has no setting {key!r}", hint=did_you_mean(key, known)
    )


def _preset(spec: MethodSpec, name: str, decoder: PartMode) -> dict[str, Any]:
    """Its keys and values."""
    if name not in spec.presets:
        raise FseftError(
            f"the method {spec.name!r} has no preset {name!r}",
            hint=did_you_mean(name, list(spec.presets)),
        )
    preset = spec.presets[name]
    settings = {**preset.settings, **(preset.with_decoder if decoder != "frozen" else {})}
    return {_owner(spec, key).current_name(key): value for key, value in settings.items()}


def _parsed(model: type[FrozenModel], key: str, value: str) -> Any:
    """JSON where it is JSON, a list where the field wants several, else the text."""
    parsed = parsed_value(value)
    if "tuple" in str(model.model_fields[key].annotation) and not isinstance(parsed, list):
        return [_number_or_text(item) for item in str(value).split(",") if item]
    return parsed


def parsed_value(value: str) -> Any:
    """JSON where it is JSON, a list where it is several with commas between, else the text."""
    for text in (value, f"[{value}]") if "," in value else (value,):
        try:
            return json.loads(text)
        except ValueError:
            continue
    return value


def _number_or_text(item: str) -> int | str:
    try:
        return int(item)
    except ValueError:
        return item


def _validated(spec: MethodSpec, model: type[Any], values: dict[str, Any]) -> Any:
    try:
        return model(**values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"][:1])
        raise FseftError(
            f"--set {key}={values.get(key)!r}: {first['msg'].removeprefix('Value error, ')}",
            hint=f"See `fseft show method {spec.name}`.",
        ) from error
