"""What is set aside for one send of a model call, and what takes its place when it has ended."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import attrs

from sandbox_sdk.experiments.budgets.accounts import Amount
from sandbox_sdk.experiments.budgets.cost import Cost
from sandbox_sdk.experiments.budgets.prices import PricedModel, Prices
from sandbox_sdk.experiments.usage import TokenUsage

_NOTHING = Amount()


@attrs.frozen(kw_only=True)
class Settled:
    """What a call came to.

    Attributes:
        counted: What the provider counted.
        estimated: What is taken for used besides, since nothing came back to settle it.
        usage: The provider's counts, where they are complete.
        cost: What they cost, where that is known.
    """

    counted: Amount = _NOTHING
    estimated: Amount = _NOTHING
    usage: TokenUsage | None = None
    cost: Cost | None = None


def settled(usage: TokenUsage | None, cost: Cost | None, reserved: Amount) -> Settled:
    """Return what a call came to.

    Args:
        usage: What the provider counted; ``None`` if nothing came back.
        cost: What that cost; ``None`` if unknown.
        reserved: What was set aside for it.
    """
    if usage is None or usage.unmetered_requests:
        return Settled(estimated=reserved)
    counted = Amount(tokens=usage.total_tokens, cost=cost.total if cost else None)
    # Counts that contradict each other have no price: what was reserved stays spent.
    unclear = reserved.cost if cost is None and reserved.cost is not None else Decimal(0)
    return Settled(counted=counted, estimated=Amount(cost=unclear), usage=usage, cost=cost)


class Reservation:
    """What one send of a call may use. Settled or released once; later calls change nothing.

    Attributes:
        model: Whose tokens they are.
        input_tokens: Tokens reserved for what is sent.
        output_tokens: Tokens reserved for the answer.
        cost: What they cost at most; ``None`` if the model has no price.
    """

    def __init__(
        self,
        prices: Prices,
        model: PricedModel,
        tokens: tuple[int, int],
        close: Callable[[Reservation, Settled], None],
    ) -> None:
        self.model = model
        self.input_tokens, self.output_tokens = tokens
        self.cost = prices.most(model, *tokens)
        self._prices = prices
        self._close: Callable[[Reservation, Settled], None] | None = close

    @property
    def amount(self) -> Amount:
        """Its tokens and cost."""
        cost = None if self.cost is None else self.cost.total
        return Amount(tokens=self.input_tokens + self.output_tokens, cost=cost)

    def settle(self, usage: TokenUsage | None) -> Cost | None:
        """Count what the call used, and return what that cost, if it is known.

        Args:
            usage: What the provider counted; ``None``, or counts that it did not tell, leave the
                reservation spent, as an estimate.
        """
        cost = None if usage is None else self._prices.cost(self.model, usage)
        self._end(settled(usage, cost, self.amount))
        return cost

    def release(self) -> None:
        """Give all of it back: the call was not sent, or was refused without being billed."""
        self._end(Settled())

    def to_json(self) -> dict[str, Any]:
        """Return it as the journal keeps it, for ``budget_facts``."""
        return {
            "model": attrs.asdict(self.model),
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cost": None if self.cost is None else str(self.cost.total),
        }

    def _end(self, how: Settled) -> None:
        close, self._close = self._close, None
        if close is not None:
            close(self, how)
