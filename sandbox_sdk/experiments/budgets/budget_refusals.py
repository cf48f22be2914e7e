"""Why a budget refuses something, in words and numbers."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal, TypeVar

import attrs

BudgetKind = Literal["tokens", "cost", "time", "cpu_time", "error_rate"]
"""What a bound is of."""

_Quantity = TypeVar("_Quantity", int, Decimal)


@attrs.frozen(kw_only=True)
class Refusal:
    """Why something may not be spent.

    Attributes:
        kind: What the bound is of.
        condition: The condition whose bound it is; ``None`` for the run's.
        limit: The bound; ``None`` where something else than a bound decides.
        used: What is spent and reserved of it.
        needed: What was asked for; 0 where nothing more may be spent at all.
        final: Whether waiting cannot help; else what is in flight may leave room when it settles.
        message: What happened, why, and what to do.
    """

    kind: BudgetKind
    condition: str | None = None
    limit: float | None = None
    used: float = 0
    needed: float = 0
    final: bool = True
    message: str


def reached(
    kind: BudgetKind, condition: str | None, limit: float, used: float, said: str
) -> Refusal:
    """Return the refusal of everything that would be started after a bound was reached.

    Args:
        kind: What the bound is of.
        condition: Whose bound it is.
        limit: The bound.
        used: What is used of it.
        said: What happened.
    """
    return Refusal(
        kind=kind,
        condition=condition,
        limit=limit,
        used=used,
        message=f"{_name(kind, condition, limit)} was reached: {said}; raise it to go on",
    )


def no_room(
    kind: BudgetKind,
    condition: str | None,
    limit: _Quantity,
    spent: _Quantity,
    reserved: _Quantity,
    needed: _Quantity,
) -> Refusal | None:
    """Return why an amount does not fit, or ``None`` if it does.

    Args:
        kind: What the bound is of.
        condition: Whose bound it is.
        limit: The bound.
        spent: What is spent of it.
        reserved: What is in flight.
        needed: The amount.
    """
    if spent + reserved + needed <= limit:
        return None
    message = (
        f"{_name(kind, condition, float(limit))} leaves no room for a call that may use "
        f"{float(needed):,.10g}: {float(spent):,.10g} are spent and {float(reserved):,.10g} in "
        "flight; raise it to go on"
    )
    return Refusal(
        kind=kind,
        condition=condition,
        limit=float(limit),
        used=float(spent + reserved),
        needed=float(needed),
        final=spent + needed > limit,
        message=message,
    )


def _name(kind: BudgetKind, condition: str | None, limit: float) -> str:
    field = kind if condition is None else f"per_condition.{kind}"
    whose = "" if condition is None else f" for the condition {condition}"
    return f"the bound budget.{field} of {limit:,.10g}{whose}"
