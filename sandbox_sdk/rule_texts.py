"""Read the rules that operators write under ``policies``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import partial
from typing import Any, get_args

from sandbox_sdk.parse import (
    Faults,
    describe,
    fault,
    parse_count,
    parse_level,
    parse_mapping,
    parse_number,
    parse_runtime,
    parse_text,
    suggestion,
)
from sandbox_sdk.resources import RESOURCE_FIELDS, parse_resource
from sandbox_sdk.rules import Protection, Rule

MOST_RULES = 1000
"""The most rules of one source."""

_ABOUT = frozenset({"name", "metadata", "clients"})  # whom it is about; all else bounds something
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}", re.IGNORECASE)


def parse_rules(value: object, path: str, source: str) -> tuple[Rule, ...]:
    """Return the rules of one source, in the order in which they stand there.

    Args:
        value: A list of mappings.
        path: Where it stands.
        source: What is told of where it was written.

    Raises:
        ConfigError: Something is wrong; all faults at once, each with its path.
    """
    if not isinstance(value, list | tuple):
        raise fault(path, f"must be a list of rules, not {describe(value)}")
    entries = _listed(value)  # pyright: ignore[reportUnknownArgumentType] - checked one by one
    if len(entries) > MOST_RULES:
        raise fault(path, f"must be at most {MOST_RULES} rules, not {len(entries)}")
    faults, rules = Faults(), list[Rule]()
    for number, entry in enumerate(entries):
        with faults.collect():
            rules.append(_parse_rule(entry, f"{path}[{number}]", source))
    seen: set[str] = set()
    for rule in rules:
        if rule.name in seen:
            faults.add(path, f'two rules are named "{rule.name}": give each a name of its own')
        seen.add(rule.name)
    faults.check()
    return tuple(rules)


def _parse_rule(value: object, path: str, source: str) -> Rule:
    faults = Faults()
    # Any: each parser returns its own field's type.
    fields: dict[str, Any] = {}
    written = parse_mapping(value, path)
    if "name" not in written:
        faults.add(path, "a rule needs a name")
    for key, item in written.items():
        if key not in _PARSERS:
            faults.add(f"{path}.{key}", f"unknown{suggestion(key, _PARSERS)}")
            continue
        with faults.collect():
            fields[key] = _PARSERS[key](item, f"{path}.{key}")
    if not written.keys() - _ABOUT:
        faults.add(path, "the rule bounds nothing: a misspelt bound would go unseen")
    faults.check()
    return Rule(source=source, **fields)


def _parse_name(value: object, path: str) -> str:
    name = parse_text(value, path)
    if not _NAME.fullmatch(name):
        raise fault(path, "must be 1 to 64 letters, digits, dots, hyphens and underscores")
    return name


def _parse_many(
    value: object, path: str, *, each: Callable[[object, str], Any] = parse_text
) -> tuple[Any, ...]:
    """Return a list of words that is not empty; one word is a list of it."""
    faults, words = Faults(), list[Any]()
    for number, item in enumerate(_listed(value)):
        with faults.collect():
            words.append(each(item, f"{path}[{number}]"))
    faults.check()
    if not words:
        raise fault(path, "must not be empty: leave it out, or name what is allowed")
    return tuple(words)


def _listed(value: object) -> list[object]:
    # Whatever a list holds is checked by who asks.
    return [*value] if isinstance(value, list | tuple) else [value]  # pyright: ignore[reportUnknownArgumentType]


def _parse_metadata(value: object, path: str) -> dict[str, str]:
    faults, found = Faults(), dict[str, str]()
    for name, pattern in parse_mapping(value, path).items():
        with faults.collect():
            found[name] = parse_text(pattern, f"{path}.{name}")
    faults.check()
    return found


def _parse_maximum(value: object, path: str) -> dict[str, float]:
    faults, found = Faults(), dict[str, float]()
    for name, most in parse_mapping(value, path).items():
        if name not in RESOURCE_FIELDS:
            faults.add(f"{path}.{name}", f"unknown{suggestion(name, RESOURCE_FIELDS)}")
            continue
        with faults.collect():
            found[name] = parse_resource(name, most, f"{path}.{name}")
    faults.check()
    return found


def _parse_seconds(value: object, path: str) -> float:
    return parse_number(value, path, "a number of seconds above 0")


def _parse_dollars(value: object, path: str) -> Decimal:
    if value == 0 and not isinstance(value, bool):
        return Decimal(0)
    return Decimal(str(parse_number(value, path, "a number of US dollars")))


def _parse_protection(value: object, path: str) -> Protection:
    known: tuple[Protection, ...] = get_args(Protection)
    for each in known:
        if value == each:
            return each
    raise fault(path, f"no protection {describe(value)}; known are {', '.join(known)}")


def _parse_require(value: object, path: str) -> frozenset[Protection]:
    return frozenset(_parse_many(value, path, each=_parse_protection))


# Any: each parser returns its own field's type.
_PARSERS: Mapping[str, Callable[[object, str], Any]] = {
    "name": _parse_name,
    "metadata": _parse_metadata,
    "clients": _parse_many,
    "minimum_level": parse_level,
    "templates": _parse_many,
    "runtimes": partial(_parse_many, each=parse_runtime),
    "maximum": _parse_maximum,
    "lifetime": _parse_seconds,
    "concurrency": parse_count,
    "cost": _parse_dollars,
    "require": _parse_require,
}
"""What a rule may hold -> how it is read."""
