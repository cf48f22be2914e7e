"""What a scorer measures by: its own ``target`` if it has one, else the sample's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

from sandbox_sdk.experiments import fields
from sandbox_sdk.parse import Faults, describe, fault
from sandbox_sdk.values import Sample

Texts = tuple[str, ...]


def texts_of(value: object, path: str) -> Texts:
    """Return a target's texts: it is one, or a list of some, any of which is right.

    A number stands for its own digits, since datasets often leave out the quotes.

    Raises:
        ConfigError: It is neither.
    """
    items = list(cast("Sequence[object]", value)) if isinstance(value, list | tuple) else [value]
    faults = Faults()
    found: list[str] = []
    for index, item in enumerate(items):
        where = f"{path}[{index}]" if len(items) > 1 else path
        if isinstance(item, int) and not isinstance(item, bool):
            found.append(str(item))
            continue
        with faults.collect():
            if item is None:
                raise fault(where, "is required by this scorer: a text, or a list of texts")
            found.append(fields.text(item, where))
    faults.check()
    if not found:
        raise fault(path, "must hold at least one text")
    return tuple(found)


def number_of(value: object, path: str) -> float:
    """Return a target that is a number, or text of one.

    Raises:
        ConfigError: It is none.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = _as_float(value)
    elif isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            number = math.nan
    else:
        number = math.nan
    if not math.isfinite(number):
        raise fault(path, f"must be a finite number, not {describe(value)}")
    return number


def target_of(own: Any, sample: Sample) -> Any:
    """Return the scorer's own target, or else the sample's."""
    return sample.target if own is None else own


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf
