"""What JSON values are to a schema: their types, when two are equal, what a reference names."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeGuard


def is_object(value: Any) -> TypeGuard[dict[str, Any]]:
    """Return whether a JSON value is an object."""
    return isinstance(value, dict)


def is_list(value: Any) -> TypeGuard[list[Any]]:
    """Return whether a JSON value is an array."""
    return isinstance(value, list)


TYPE_CHECKS: dict[str, Callable[[Any], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "object": is_object,
    "array": is_list,
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    # By the standard, 1.0 is an integer.
    "integer": lambda value: (
        not isinstance(value, bool)
        and (isinstance(value, int) or (isinstance(value, float) and value.is_integer()))
    ),
    "string": lambda value: isinstance(value, str),
}

TYPES = tuple(TYPE_CHECKS)
"""The words that ``type`` may be."""


def resolve(root: Any, reference: str) -> Any:
    """Return the part of a schema that a reference such as ``#/$defs/point`` names.

    Raises:
        LookupError: It names none.
    """
    if reference != "#" and not reference.startswith("#/"):
        raise LookupError(reference)
    node: Any = root
    for part in reference.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if is_list(node):
            node = node[int(key)] if key.isdecimal() else None
        elif is_object(node) and key in node:
            node = node[key]
        else:
            raise LookupError(reference)
    if is_object(node) or isinstance(node, bool):
        return node
    raise LookupError(reference)


def equal(first: Any, second: Any) -> bool:
    """Return whether two JSON values are the same: 1 is 1.0, but not true."""
    return key_of(first) == key_of(second)


def key_of(value: Any) -> str:
    """Return a text that two JSON values share exactly if they are equal."""
    return json.dumps(plain(value), sort_keys=True)


def plain(value: Any) -> Any:
    """Return a JSON value whose whole numbers are all ``int``."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if is_list(value):
        return [plain(item) for item in value]
    if is_object(value):
        return {key: plain(item) for key, item in value.items()}
    return value
