"""The grid of a batch: every combination of its axes is a condition."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, cast

import attrs

from sandbox_sdk.experiments import fields
from sandbox_sdk.parse import Faults, fault, suggestion

MOST_CONDITIONS = 10_000
"""The most conditions of one batch."""

SECTIONS = ("parameters", "limits", "sandbox")
"""The fields whose parts may be axes too, as in ``parameters.temperature``."""

_LONGEST_SHOWN = 40


# Any: cells are what a config may hold at their place, read there.
@attrs.frozen(kw_only=True)
class Cell:
    """One condition of a grid, not yet read.

    Attributes:
        label: Its name: the value of each axis, or its number where it is long.
        axes: Axis -> value.
        config: The batch's config with these values in place.
    """

    label: str
    axes: Mapping[str, Any]
    config: Mapping[str, Any] = attrs.field(repr=False)


def expand(config: Mapping[str, Any], grid: object, known: Sequence[str], path: str) -> list[Cell]:
    """Return the conditions of a grid, in order; the last axis changes fastest.

    A value that is a mapping is merged into the section of that name.

    Args:
        config: The batch's config without its grid.
        grid: Axis -> list of values; nothing is one condition.
        known: The fields that may be axes.
        path: Where the grid stands.

    Raises:
        ConfigError: It is no grid; all faults at once.
    """
    if grid is None:
        return [Cell(label=_plain_label(config), axes={}, config=config)]
    faults = Faults()
    axes: dict[str, tuple[Any, ...]] = {}
    count = 1
    for axis, values in fields.names_of(grid, path).items():
        with faults.collect():
            _check_axis(axis, known, f"{path}.{axis}")
            found = tuple(fields.items_of(values, f"{path}.{axis}"))
            if not found:
                raise fault(f"{path}.{axis}", "has no values")
            shown = [repr(value) for value in found]
            if len(set(shown)) < len(shown):
                raise fault(f"{path}.{axis}", "has the same value twice")
            axes[axis] = found
            count *= len(found)
    for axis in axes:
        section = axis.partition(".")[0]
        if section != axis and section in axes:
            faults.add(f"{path}.{axis}", f'goes with no axis "{section}": it is a part of it')
    if count > MOST_CONDITIONS:
        faults.add(path, f"makes {count:,} conditions, more than the {MOST_CONDITIONS:,} allowed")
    faults.check()
    names = {axis: _names(values) for axis, values in axes.items()}
    cells: list[Cell] = []
    for place in itertools.product(*(range(len(values)) for values in axes.values())):
        at = dict(zip(axes, place, strict=True))
        label = ", ".join(f"{axis}={names[axis][number]}" for axis, number in at.items())
        chosen = {axis: axes[axis][number] for axis, number in at.items()}
        placed = _placed(config, chosen)
        cells.append(Cell(label=label or _plain_label(config), axes=chosen, config=placed))
    return cells


def _check_axis(axis: str, known: Sequence[str], path: str) -> None:
    section, dot, part = axis.partition(".")
    if section not in known:
        raise fault(path, f"no field of an experiment is called so{suggestion(section, known)}")
    if dot and (section not in SECTIONS or not part):
        listed = ", ".join(f'"{name}.NAME"' for name in SECTIONS)
        raise fault(path, f"an axis is a field, or one of {listed}")


def _placed(config: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    placed = dict(config)
    for axis, given in values.items():
        section, _, part = axis.partition(".")
        value = {part: given} if part else given
        if section in SECTIONS and isinstance(value, Mapping):
            before: object = placed.get(section) or {}
            if isinstance(before, Mapping):
                value = {**cast("Mapping[str, Any]", before), **value}
        placed[section] = value
    return placed


def _names(values: tuple[Any, ...]) -> list[str]:
    """Return a short word for each value of an axis: itself, or its number."""
    return [_name(value) or f"#{number}" for number, value in enumerate(values, start=1)]


def _name(value: object) -> str:
    if isinstance(value, bool | int | float):
        return str(value).lower() if isinstance(value, bool) else str(value)
    if isinstance(value, list):
        items = cast("list[object]", value)
        value = "+".join(map(str, items)) or "none"
    plain = isinstance(value, str) and value.isprintable() and len(value) <= _LONGEST_SHOWN
    return str(value) if plain and not set(str(value)) & set(" ,=#") else ""


def _plain_label(config: Mapping[str, Any]) -> str:
    model = config.get("model")
    return model if isinstance(model, str) else "code"
