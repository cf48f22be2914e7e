"""The kinds of fields that an experiment's config is made of, each a strict reader.

A reader takes a value and its path, and returns what is meant or raises a ``ConfigError`` whose
faults begin with the path. Nothing is converted: ``"0.7"`` is no number and ``True`` is not 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar, cast

from sandbox_sdk.parse import Faults, describe, fault, suggestion
from sandbox_sdk.values import MIB

T = TypeVar("T")

Reader = Callable[[object, str], object]
"""Reads one field's value at a path."""

LONGEST_TEXT = 16 * MIB
"""The longest text of one field, in UTF-8 bytes."""

_DEEPEST = 32
_MOST_UNKNOWN = 20


def read_fields(
    value: object, path: str, readers: Mapping[str, Reader], hints: Mapping[str, str] | None = None
) -> dict[str, object]:
    """Return the mapping's fields as read.

    Args:
        value: What the user wrote.
        path: Where it stands.
        readers: Field -> its reader.
        hints: Unknown field -> what to say of it; others get a did-you-mean.

    Raises:
        ConfigError: All faults of all fields at once.
    """
    faults = Faults()
    found: dict[str, object] = {}
    unknown = 0
    for key, item in names_of(value, path).items():
        where = f"{path}.{key}"
        if key in readers:
            with faults.collect():
                found[key] = readers[key](item, where)
        elif hints and (hint := hints.get(key.lower())):
            faults.add(where, hint)
        else:
            unknown += 1
            if unknown <= _MOST_UNKNOWN:  # a suggestion takes time
                faults.add(where, f"unknown key{suggestion(key, readers)}")
    if unknown > _MOST_UNKNOWN:
        faults.add(path, f"{unknown - _MOST_UNKNOWN} more unknown keys")
    faults.check()
    return found


def names_of(value: object, path: str) -> Mapping[str, object]:
    """Return a mapping whose keys are all text."""
    if not isinstance(value, Mapping):
        raise fault(path, f"must be a mapping of names to values, not {describe(value)}")
    mapping = cast("Mapping[object, object]", value)
    if wrong := [key for key in mapping if not isinstance(key, str)]:
        raise fault(path, f"every name must be text, not {describe(wrong[0])}")
    return cast("Mapping[str, object]", mapping)


def items_of(value: object, path: str) -> Sequence[object]:
    """Return a list or tuple."""
    if not isinstance(value, list | tuple):
        raise fault(path, f"must be a list, not {describe(value)}")
    return cast("Sequence[object]", value)


def number(least: float, most: float = math.inf, *, above: bool = False) -> Callable[..., float]:
    """Read a finite number from ``least`` (or above it) to ``most``."""

    def read(value: object, path: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise fault(path, f"must be a number, not {describe(value)}")
        # NaN fails every comparison.
        if not (least < value if above else least <= value) or not value <= min(most, 1e15):
            bound = f"above {least:g}" if above else f"at least {least:g}"
            upper = f" and at most {most:g}" if most < math.inf else ""
            raise fault(path, f"must be {bound}{upper}, not {describe(value)}")
        return value

    return read


def whole(least: int, most: int = 2**53) -> Callable[..., int]:
    """Read a whole number from ``least`` to ``most``."""

    def read(value: object, path: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise fault(path, f"must be a whole number, not {describe(value)}")
        if not least <= value <= most:
            raise fault(path, f"must be from {least} to {most}, not {describe(value)}")
        return value

    return read


def text(value: object, path: str) -> str:
    """Read text of at most ``LONGEST_TEXT``; it may be empty."""
    if not isinstance(value, str):
        raise fault(path, f"must be text, not {describe(value)}")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise fault(path, "is not valid Unicode text: it holds a lone surrogate") from None
    if size > LONGEST_TEXT:
        raise fault(
            path,
            f"is {size:,} bytes long, more than the {LONGEST_TEXT:,} that one text may have; "
            'pass it as a file with "files" and name the file in the prompt',
        )
    return value


def filled_text(value: object, path: str) -> str:
    """Read text that is more than white space."""
    if not text(value, path).strip():
        raise fault(path, "must not be empty")
    return cast("str", value)


def line(value: object, path: str) -> str:
    """Read one line of 1 to 1,000 characters."""
    found = filled_text(value, path)
    if len(found) > 1000 or not found.isprintable():
        raise fault(path, "must be one line of at most 1,000 characters without control characters")
    return found


def flag(value: object, path: str) -> bool:
    """Read ``True`` or ``False``."""
    if not isinstance(value, bool):
        raise fault(path, f"must be true or false, not {describe(value)}")
    return value


def word(*words: str) -> Callable[..., str]:
    """Read one of some words."""

    def read(value: object, path: str) -> str:
        if not isinstance(value, str):
            raise fault(path, f"must be one of {', '.join(words)}, not {describe(value)}")
        if value not in words:
            raise fault(path, f"no such word {describe(value)}{suggestion(value, words)}")
        return value

    return read


def list_of(reader: Callable[[object, str], T], most: int = 10_000) -> Callable[..., tuple[T, ...]]:
    """Read a list, each item with ``reader``; its length is bounded."""

    def read(value: object, path: str) -> tuple[T, ...]:
        items = items_of(value, path)
        if len(items) > most:
            raise fault(path, f"has {len(items):,} items, more than the {most:,} allowed")
        faults = Faults()
        found: list[T] = []
        for index, item in enumerate(items):
            with faults.collect():
                found.append(reader(item, f"{path}[{index}]"))
        faults.check()
        return tuple(found)

    return read


def one_or_more(reader: Callable[[object, str], T]) -> Callable[..., tuple[T, ...]]:
    """Read a list, or a single text that stands for a list of one."""
    read_list = list_of(reader)

    def read(value: object, path: str) -> tuple[T, ...]:
        return read_list([value] if isinstance(value, str) else value, path)

    return read


def mapping_of(reader: Callable[[object, str], T]) -> Callable[..., dict[str, T]]:
    """Read a mapping of names to values, each value with ``reader``."""

    def read(value: object, path: str) -> dict[str, T]:
        faults = Faults()
        found: dict[str, T] = {}
        for key, item in names_of(value, path).items():
            with faults.collect():
                found[text(key, path)] = reader(item, f"{path}.{key}")
        faults.check()
        return found

    return read


def json_value(value: object, path: str, depth: int = 0) -> object:
    """Read anything that JSON can say, copied, so that later changes do not reach it."""
    if depth > _DEEPEST:
        raise fault(path, f"is nested deeper than {_DEEPEST} levels")
    match value:
        case None | bool():
            return value
        case str():
            return text(value, path)
        case int() if abs(value) < 2**63:
            return value
        case float() if math.isfinite(value):
            return value
        case Mapping():
            items = names_of(cast("object", value), path).items()
            return {key: json_value(item, f"{path}.{key}", depth + 1) for key, item in items}
        case list() | tuple():
            listed = enumerate(cast("Sequence[object]", value))
            return [json_value(item, f"{path}[{index}]", depth + 1) for index, item in listed]
        case _:
            raise fault(path, f"must be something JSON can say, not {describe(value)}")


def json_object(value: object, path: str) -> dict[str, object]:
    """Read a JSON object."""
    names_of(value, path)
    return cast("dict[str, object]", json_value(value, path))
