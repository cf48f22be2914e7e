"""How a context or file operation answers: lines of JSON on the result stream.

The last line is an object. Each line before it is one long text, a JSON string by itself; the
object holds the line's number in its place. So whoever reads the answer never parses more
structure than one short object, however much is shown.
"""

from __future__ import annotations

import json
import os
from typing import Any

LONGEST_INLINE = 4096
"""Characters of the longest text that stands in the object itself."""

_INLINE = 64 * 1024  # characters of all such texts

# Not the default one of json.dumps, which writes é as six bytes.
_ENCODER = json.JSONEncoder(ensure_ascii=False)
_STRICT = json.JSONEncoder(ensure_ascii=False, allow_nan=False)


def encode(value: object) -> bytes:
    """Return a value as one line of JSON; halves of characters come through as they are."""
    return _ENCODER.encode(value).encode("utf-8", "surrogatepass") + b"\n"


def json_text(value: object) -> str:
    """Return a value as JSON.

    Raises:
        TypeError: It is not made of what JSON has.
        ValueError: It holds itself, or a number that is none.
        RecursionError: It is too deep.
    """
    return _STRICT.encode(value)


def encode_answer(answer: dict[str, Any], texts: list[dict[str, Any]]) -> bytes:
    """Return the lines of an answer.

    Args:
        answer: The object of the last line.
        texts: Parts of it whose values are texts; long ones are replaced by their line's number.
    """
    lines: list[bytes] = []
    room = _INLINE
    for named in texts:
        for name, text in named.items():
            if len(text) <= min(room, LONGEST_INLINE):
                room -= len(text)
            else:
                named[name] = len(lines)
                lines.append(encode(text))
    return b"".join([*lines, encode(answer)])


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of it, however much the descriptor takes at once."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
