"""JSON Schema, draft 2020-12, as far as ``KEYWORDS`` goes: is a schema one, does a value fit it?"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

from .json_values import TYPE_CHECKS, equal, is_list, is_object, key_of, plain, resolve

MOST_FAULTS = 20


ANNOTATIONS = frozenset(
    {"$schema", "$id", "$comment", "$defs", "definitions", "title", "description", "default"}
    | {"examples", "deprecated", "readOnly", "writeOnly", "format"}
    | {"contentEncoding", "contentMediaType", "contentSchema"}
)
"""Keywords that judge nothing. By the standard ``format`` is one of them."""


class _Faults(list[str]):
    """The faults found so far; full when there are enough."""

    @property
    def full(self) -> bool:
        return len(self) >= MOST_FAULTS


def faults(value: Any, root: Any) -> list[str]:
    """Return where a value does not fit a schema that ``read_schema`` accepted."""
    found = _Faults()
    _check(value, root, "$", root, found)
    return found[:MOST_FAULTS]


def _fits(value: Any, rules: Any, root: Any) -> bool:
    found = _Faults()
    _check(value, rules, "$", root, found)
    return not found


def _check(value: Any, rules: Any, path: str, root: Any, found: _Faults) -> None:
    if found.full or rules is True:
        return
    if rules is False:
        found.append(f"{path}: nothing is allowed here")
        return
    for word, said in rules.items():
        if word in _CHECKS and not found.full:
            _CHECKS[word](value, said, path, rules, root, found)


def _kind(value: Any, said: Any, path: str, _: Any, __: Any, found: _Faults) -> None:
    words = [said] if isinstance(said, str) else said
    if not any(TYPE_CHECKS[word](value) for word in words):
        found.append(f"{path}: must be {' or '.join(words)}")


def _enum(value: Any, said: Any, path: str, _: Any, __: Any, found: _Faults) -> None:
    if not any(equal(value, item) for item in said):
        found.append(f"{path}: must be one of {json.dumps(said)[:200]}")


def _const(value: Any, said: Any, path: str, _: Any, __: Any, found: _Faults) -> None:
    if not equal(value, said):
        found.append(f"{path}: must be {json.dumps(said)[:200]}")


def _bound(
    applies: type | tuple[type, ...],
    measure: Callable[[Any], Any],
    holds: Callable[[Any, Any], bool],
    text: str,
) -> Callable[..., None]:
    """Return the check of a keyword that bounds a number, or a length."""

    def check(value: Any, said: Any, path: str, _: Any, __: Any, found: _Faults) -> None:
        judged = isinstance(value, applies) and not isinstance(value, bool)
        if judged and not holds(measure(value), said):
            found.append(f"{path}: {text.format(said)}")

    return check


def _multiple(value: Any, step: Any) -> bool:
    value, step = plain(value), plain(step)
    if isinstance(value, int) and isinstance(step, int):
        return value % step == 0
    try:
        ratio = value / step
    except OverflowError:
        return False
    return math.isfinite(ratio) and abs(ratio - round(ratio)) <= 1e-9 * abs(ratio)


def _pattern(value: Any, said: Any, path: str, _: Any, __: Any, found: _Faults) -> None:
    if isinstance(value, str) and re.search(said, value) is None:
        found.append(f"{path}: must match {said[:200]!r}")


def _unique(value: Any, said: Any, path: str, _: Any, __: Any, found: _Faults) -> None:
    if said and is_list(value) and len({key_of(item) for item in value}) < len(value):
        found.append(f"{path}: must hold no item twice")


def _items(value: Any, said: Any, path: str, rules: Any, root: Any, found: _Faults) -> None:
    if is_list(value):
        first = len(rules.get("prefixItems", ()))
        for index, item in enumerate(value[first:], start=first):
            _check(item, said, f"{path}[{index}]", root, found)


def _prefix(value: Any, said: Any, path: str, _: Any, root: Any, found: _Faults) -> None:
    if is_list(value):
        for index, (item, rules) in enumerate(zip(value, said, strict=False)):
            _check(item, rules, f"{path}[{index}]", root, found)


def _contains(value: Any, said: Any, path: str, rules: Any, root: Any, found: _Faults) -> None:
    if is_list(value):
        count = sum(_fits(item, said, root) for item in value)
        least, most = rules.get("minContains", 1), rules.get("maxContains", math.inf)
        if not least <= count <= most:
            found.append(f"{path}: holds {count} items of the kind that it must contain")


def _required(value: Any, said: Any, path: str, _: Any, __: Any, found: _Faults) -> None:
    if is_object(value):
        found.extend(f"{path}.{name[:100]}: is required" for name in said if name not in value)


def _properties(value: Any, said: Any, path: str, _: Any, root: Any, found: _Faults) -> None:
    if is_object(value):
        for name, rules in said.items():
            if name in value:
                _check(value[name], rules, f"{path}.{name[:100]}", root, found)


def _pattern_properties(
    value: Any, said: Any, path: str, _: Any, root: Any, found: _Faults
) -> None:
    if is_object(value):
        for pattern, rules in said.items():
            for name, item in value.items():
                if re.search(pattern, name):
                    _check(item, rules, f"{path}.{name[:100]}", root, found)


def _additional(value: Any, said: Any, path: str, rules: Any, root: Any, found: _Faults) -> None:
    if is_object(value):
        for name in _others(value, rules):
            _check(value[name], said, f"{path}.{name[:100]}", root, found)


def _others(value: dict[str, Any], rules: Any) -> Iterator[str]:
    known, patterns = rules.get("properties", {}), rules.get("patternProperties", {})
    for name in value:
        if name not in known and not any(re.search(pattern, name) for pattern in patterns):
            yield name


def _names(value: Any, said: Any, path: str, _: Any, root: Any, found: _Faults) -> None:
    if is_object(value):
        for name in value:
            _check(name, said, f"{path}.{name[:100]} (its name)", root, found)


def _dependent(value: Any, said: Any, path: str, _: Any, __: Any, found: _Faults) -> None:
    if is_object(value):
        for name, needed in said.items():
            missing = [other for other in needed if name in value and other not in value]
            found.extend(
                f"{path}.{other[:100]}: is required with {name[:100]}" for other in missing
            )


def _dependent_schemas(value: Any, said: Any, path: str, _: Any, root: Any, found: _Faults) -> None:
    if is_object(value):
        for name, rules in said.items():
            if name in value:
                _check(value, rules, path, root, found)


def _all(value: Any, said: Any, path: str, _: Any, root: Any, found: _Faults) -> None:
    for rules in said:
        _check(value, rules, path, root, found)


def _any(value: Any, said: Any, path: str, _: Any, root: Any, found: _Faults) -> None:
    if not any(_fits(value, rules, root) for rules in said):
        found.append(f"{path}: fits none of anyOf")


def _one(value: Any, said: Any, path: str, _: Any, root: Any, found: _Faults) -> None:
    if (count := sum(_fits(value, rules, root) for rules in said)) != 1:
        found.append(f"{path}: fits {count} of oneOf, not exactly one")


def _not(value: Any, said: Any, path: str, _: Any, root: Any, found: _Faults) -> None:
    if _fits(value, said, root):
        found.append(f"{path}: fits what it must not")


def _if(value: Any, said: Any, path: str, rules: Any, root: Any, found: _Faults) -> None:
    branch = "then" if _fits(value, said, root) else "else"
    _check(value, rules.get(branch, True), path, root, found)


def _reference(value: Any, said: Any, path: str, _: Any, root: Any, found: _Faults) -> None:
    _check(value, resolve(root, said), path, root, found)


_NUMBERS = (int, float)

_CHECKS: dict[str, Callable[..., None]] = {
    "$ref": _reference,
    "type": _kind,
    "enum": _enum,
    "const": _const,
    "minimum": _bound(_NUMBERS, lambda v: v, lambda v, n: v >= n, "must be at least {}"),
    "maximum": _bound(_NUMBERS, lambda v: v, lambda v, n: v <= n, "must be at most {}"),
    "exclusiveMinimum": _bound(_NUMBERS, lambda v: v, lambda v, n: v > n, "must be above {}"),
    "exclusiveMaximum": _bound(_NUMBERS, lambda v: v, lambda v, n: v < n, "must be below {}"),
    "multipleOf": _bound(_NUMBERS, lambda v: v, _multiple, "must be a multiple of {}"),
    "minLength": _bound(str, len, lambda v, n: v >= n, "must have at least {} characters"),
    "maxLength": _bound(str, len, lambda v, n: v <= n, "must have at most {} characters"),
    "pattern": _pattern,
    "minItems": _bound(list, len, lambda v, n: v >= n, "must have at least {} items"),
    "maxItems": _bound(list, len, lambda v, n: v <= n, "must have at most {} items"),
    "uniqueItems": _unique,
    "prefixItems": _prefix,
    "items": _items,
    "contains": _contains,
    "minProperties": _bound(dict, len, lambda v, n: v >= n, "must have at least {} members"),
    "maxProperties": _bound(dict, len, lambda v, n: v <= n, "must have at most {} members"),
    "required": _required,
    "properties": _properties,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional,
    "propertyNames": _names,
    "dependentRequired": _dependent,
    "dependentSchemas": _dependent_schemas,
    "allOf": _all,
    "anyOf": _any,
    "oneOf": _one,
    "not": _not,
    "if": _if,
}

KEYWORDS = frozenset(_CHECKS) | {"then", "else", "minContains", "maxContains"}
"""Keywords that judge; all others but ``ANNOTATIONS`` are refused."""
