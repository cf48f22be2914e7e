"""Prices of tokens, and what they come to: exact amounts that say whose prices they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

import attrs

from sandbox_sdk.experiments.usage import TokenUsage

CURRENCY = "USD"
"""What all costs are in."""

_MILLION = Decimal(1_000_000)


@attrs.frozen(kw_only=True)
class Price:
    """What one model costs, in US dollars per million tokens.

    Attributes:
        input: Tokens sent.
        output: Tokens answered.
        cache_read: Of those sent, the ones a cache held; by default as ``input``.
        cache_write: Of those sent, the ones put into a cache; by default as ``input``.
    """

    input: Decimal
    output: Decimal
    cache_read: Decimal | None = None
    cache_write: Decimal | None = None

    def of(self, usage: TokenUsage) -> Decimal:
        """Return what tokens cost."""
        read, written = usage.cache_read_tokens or 0, usage.cache_write_tokens or 0
        plain = usage.input_tokens - read - written
        total = (
            plain * self.input
            + read * (self.input if self.cache_read is None else self.cache_read)
            + written * (self.input if self.cache_write is None else self.cache_write)
            + usage.output_tokens * self.output
        )
        return total / _MILLION


@attrs.frozen(kw_only=True)
class Cost:
    """What something cost.

    Attributes:
        total: The amount, exact.
        source: Whose prices they are.
        currency: What the amount is in.
    """

    total: Decimal
    source: str
    currency: str = CURRENCY

    def __add__(self, other: Cost) -> Cost:
        sources = dict.fromkeys((*self.source.split(", "), *other.source.split(", ")))
        return Cost(total=self.total + other.total, source=", ".join(sources))

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON; the amount is text, so that it stays exact."""
        return {"total": str(self.total), "currency": self.currency, "source": self.source}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Cost:
        """Return what ``to_json`` wrote."""
        return cls(
            total=Decimal(value["total"]), source=value["source"], currency=value["currency"]
        )


def total_cost(costs: Iterable[Cost | None]) -> Cost | None:
    """Return what several things cost together; ``None`` if one is unknown, or there is none."""
    total: Cost | None = None
    for cost in costs:
        if cost is None:
            return None
        total = cost if total is None else total + cost
    return total
