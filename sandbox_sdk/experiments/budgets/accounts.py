"""What is spent, estimated and reserved within one scope of a budget."""

from __future__ import annotations

from decimal import Decimal

import attrs

from sandbox_sdk.experiments.budgets.budget_limits import FIRST_ENDED, Bounds
from sandbox_sdk.experiments.budgets.budget_refusals import BudgetKind

_NOTHING = Decimal(0)


@attrs.frozen(kw_only=True)
class Amount:
    """Tokens and what they cost.

    Attributes:
        tokens: Input and output tokens.
        cost: US dollars; ``None`` if unknown.
    """

    tokens: int = 0
    cost: Decimal | None = _NOTHING

    def __add__(self, other: Amount) -> Amount:
        known = self.cost is not None and other.cost is not None
        cost = (self.cost or _NOTHING) + (other.cost or _NOTHING) if known else None
        return Amount(tokens=self.tokens + other.tokens, cost=cost)


@attrs.frozen(kw_only=True)
class BudgetLine:
    """How one bound of a budget stands.

    Attributes:
        kind: What the bound is of.
        scope: ``run``, or ``condition``.
        condition: The condition, where it is one's bound.
        limit: The bound; ``None`` where there is none.
        spent: What was counted; ``None`` where some of it is unknown.
        estimated: What may have been used besides, by calls of which no usage came back.
        reserved: What calls in flight may use.
    """

    kind: BudgetKind
    condition: str | None = None
    limit: float | None = None
    spent: float | None
    estimated: float = 0
    reserved: float = 0

    @property
    def scope(self) -> str:
        """The condition, or ``run``."""
        return "run" if self.condition is None else f"condition {self.condition}"


@attrs.define(kw_only=True)
class Account:
    """What one scope has spent of its bounds.

    Attributes:
        condition: Whose it is; ``None`` for the whole run.
        bounds: Its bounds.
        counted: What providers counted.
        estimated: What is taken for spent, since nothing came back to settle it.
        reserved: What calls in flight may use.
        unpriced_tokens: Tokens whose cost is unknown, and so is in no total.
        cpu_seconds: CPU time of ended sandboxes.
        ended: Attempts that ended.
        errors: Of those, the ones that the model or the infrastructure failed.
    """

    condition: str | None = None
    bounds: Bounds
    counted: Amount = Amount()
    estimated: Amount = Amount()
    reserved: Amount = Amount()
    unpriced_tokens: int = 0
    cpu_seconds: float = 0.0
    ended: int = 0
    errors: int = 0

    @property
    def tokens(self) -> int:
        """Tokens that are spent, or taken for spent."""
        return self.counted.tokens + self.estimated.tokens

    @property
    def cost(self) -> Decimal:
        """US dollars that are spent, or taken for spent, as far as prices are known."""
        return (self.counted.cost or _NOTHING) + (self.estimated.cost or _NOTHING)

    @property
    def error_rate(self) -> float:
        """The share of errors; 0 while too few attempts have ended to tell."""
        return self.errors / self.ended if self.ended >= FIRST_ENDED else 0.0

    def reserve(self, amount: Amount) -> None:
        """Set an amount aside."""
        self._reserve(amount, 1)

    def settle(self, reserved: Amount, counted: Amount, estimated: Amount) -> None:
        """Put what was used in place of what was set aside for it.

        Args:
            reserved: What was set aside.
            counted: What the provider counted.
            estimated: What is taken for used besides.
        """
        self._reserve(reserved, -1)
        self.take(counted, estimated)

    def take(self, counted: Amount, estimated: Amount) -> None:
        """Count what was used without having been set aside here."""
        for amount in (counted, estimated):
            if amount.cost is None:
                self.unpriced_tokens += amount.tokens
        self.counted += _priced(counted)
        self.estimated += _priced(estimated)

    def _reserve(self, amount: Amount, sign: int) -> None:
        cost = sign * (amount.cost or _NOTHING)
        self.reserved += Amount(tokens=sign * amount.tokens, cost=cost)

    def lines(self) -> list[BudgetLine]:
        """Return how each bound stands, and tokens and cost in any case."""
        bounds, counted, estimated, reserved = (
            self.bounds,
            self.counted,
            self.estimated,
            self.reserved,
        )
        lines = [
            BudgetLine(
                kind="tokens",
                condition=self.condition,
                limit=bounds.tokens,
                spent=counted.tokens,
                estimated=estimated.tokens,
                reserved=reserved.tokens,
            ),
            BudgetLine(
                kind="cost",
                condition=self.condition,
                limit=None if bounds.cost is None else float(bounds.cost),
                spent=None if self.unpriced_tokens else float(counted.cost or 0),
                estimated=float(estimated.cost or 0),
                reserved=float(reserved.cost or 0),
            ),
        ]
        if bounds.cpu_time is not None:
            lines.append(
                BudgetLine(
                    kind="cpu_time",
                    condition=self.condition,
                    limit=bounds.cpu_time,
                    spent=self.cpu_seconds,
                )
            )
        if bounds.error_rate is not None:
            lines.append(
                BudgetLine(
                    kind="error_rate",
                    condition=self.condition,
                    limit=bounds.error_rate,
                    spent=self.errors / self.ended if self.ended else 0.0,
                )
            )
        return lines


def _priced(amount: Amount) -> Amount:
    """Return the amount with an unknown cost left out."""
    return Amount(tokens=amount.tokens, cost=amount.cost or _NOTHING)
