"""What a run may spend, as a user writes it: run-wide, and for each condition of its grid."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import attrs

from sandbox_sdk.experiments import fields

FIRST_ENDED = 20
"""Attempts that must have ended before a share of errors says anything."""


@attrs.frozen(kw_only=True)
class Bounds:
    """Bounds of what is spent together. ``None`` is no bound.

    Attributes:
        tokens: Input and output tokens of all model calls, graders' included.
        cost: US dollars.
        cpu_time: CPU seconds of sandboxes, counted when each ends.
        error_rate: Share of ended attempts that a model or the infrastructure failed, from 0 to 1;
            it acts once 20 attempts have ended.
    """

    tokens: int | None = None
    cost: Decimal | None = None
    cpu_time: float | None = None
    error_rate: float | None = None


@attrs.frozen(kw_only=True)
class BudgetLimits(Bounds):
    """The bounds of a run.

    Attributes:
        time: Seconds of the run, those of earlier processes that worked on it included.
        hard: Reserve the most that a call can use, so that nothing is overspent; every call then
            needs ``max_tokens``.
        per_condition: Bounds of each condition by itself.
    """

    time: float | None = None
    hard: bool = False
    per_condition: Bounds = Bounds()

    @property
    def cost_bounded(self) -> bool:
        """Whether any bound is in dollars."""
        return self.cost is not None or self.per_condition.cost is not None


def read_budget(value: object, path: str) -> BudgetLimits:
    """Read a budget as a user writes it.

    Raises:
        ConfigError: It is none; all faults at once, each with its path.
    """
    found: dict[str, Any] = fields.read_fields(value, path, _BUDGET, _HINTS)
    return BudgetLimits(**found)


def budget_json(limits: BudgetLimits) -> dict[str, Any]:
    """Return a budget as JSON, as ``read_budget`` takes it; bounds that are none are left out."""

    def bounds(of: Bounds) -> dict[str, Any]:
        found = {name: getattr(of, name) for name in _BOUNDS}
        return {
            name: float(bound) if isinstance(bound, Decimal) else bound
            for name, bound in found.items()
            if bound is not None
        }

    told = bounds(limits)
    if limits.time is not None:
        told["time"] = limits.time
    if limits.hard:
        told["hard"] = True
    if each := bounds(limits.per_condition):
        told["per_condition"] = each
    return told


def _dollars(value: object, path: str) -> Decimal:
    # By way of text: 0.1 dollars are meant, not the nearest binary number.
    return Decimal(str(fields.number(0, 10**9, above=True)(value, path)))


def _per_condition(value: object, path: str) -> Bounds:
    found: dict[str, Any] = fields.read_fields(value, path, _BOUNDS, _RUN_WIDE)
    return Bounds(**found)


_SECONDS = fields.number(0, 10**9, above=True)

_BOUNDS: Mapping[str, fields.Reader] = {
    "tokens": fields.whole(1),
    "cost": _dollars,
    "cpu_time": _SECONDS,
    "error_rate": fields.number(0, 1),
}

_BUDGET: Mapping[str, fields.Reader] = {
    **_BOUNDS,
    "time": _SECONDS,
    "hard": fields.flag,
    "per_condition": _per_condition,
}

_HINTS = {
    "usd": 'is called "cost"',
    "dollars": 'is called "cost"',
    "seconds": 'is called "time"',
    "turns": 'is a limit of each attempt: it belongs in "limits"',
}

_RUN_WIDE = {
    "time": "is a bound of the whole run: conditions run side by side",
    "hard": 'holds for the whole run: it belongs one level up, in "budget"',
}
