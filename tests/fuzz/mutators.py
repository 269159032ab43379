"""Seeded mutations of files: of bytes, of header fields, and of values in JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

WORDS = (
    *(0, 1, -1, 2**31, 2**63, 0.5, -1e30, 1e300, True, False, None, "", "x", "1", "é\x00"),
    *([], {}, [1, 2], {"a": 1}, [[]], "[/]", "../x", float("nan"), float("inf")),
)
"""Values that replace those of a document."""


def mutated_bytes(content: bytes, rng: np.random.Generator, header: int = 0) -> bytes:
    """Changes, inserts, removes or repeats some bytes; half of the time in the header only."""
    data = bytearray(content)
    limit = len(data)
    if header and rng.random() < 0.5:
        limit = min(header, limit)
    for _ in range(int(rng.integers(1, 5))):
        place = int(rng.integers(max(1, min(limit, len(data)))))
        kind = rng.integers(6)
        length = int(rng.integers(1, 64))
        if kind == 0:
            data[place : place + 1] = bytes([int(rng.integers(256))])
        elif kind == 1:
            data[place : place + length] = rng.bytes(length)
        elif kind == 2:
            del data[place : place + length]
        elif kind == 3:
            data[place:place] = rng.bytes(length)
        elif kind == 4:
            data[place : place + 4] = rng.choice(
                [b"\xff\xff\xff\x7f", b"\0\0\0\0", b"\0\0\xc0\x7f"]
            )
        else:
            del data[int(rng.integers(len(data) + 1)) :]
        if not data:
            return b""
    return bytes(data)


def mutated_json(text: str, rng: np.random.Generator) -> str:
    """Replaces, removes or adds a value anywhere in a document; now and then damages its text."""
    if rng.random() < 0.1:
        return mutated_bytes(text.encode(), rng).decode("utf-8", errors="surrogateescape")
    document = json.loads(text)
    places = list(_places(document))
    container, key = places[int(rng.integers(len(places)))]
    if rng.random() < 0.2:
        del container[key]
    elif rng.random() < 0.1 and isinstance(container, dict):
        container["unknown"] = _word(rng)
    else:
        container[key] = _word(rng)
    return json.dumps(document)


def _word(rng):
    return WORDS[int(rng.integers(len(WORDS)))]


def _places(value):
    """All containers with each of their keys."""
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    else:
        return
    for key, item in items:
        yield value, key
        yield from _places(item)
