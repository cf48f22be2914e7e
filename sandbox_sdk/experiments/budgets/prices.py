"""What tokens cost: the user's own table first, then the data of ``genai-prices`` (an extra).

A price that nobody knows is ``None`` and never 0. No price is fetched: ``genai-prices`` brings its
data along, and its updater is never called.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import attrs

from sandbox_sdk.experiments import fields
from sandbox_sdk.experiments.budgets.cost import Cost, Price
from sandbox_sdk.experiments.budgets.public_prices import public_price, public_source
from sandbox_sdk.experiments.usage import TokenUsage
from sandbox_sdk.parse import fault

USER_TABLE = "the prices of the config"
"""The source of a cost that the user's own table decides."""

_SOLD = ("openai", "anthropic")


@attrs.frozen(kw_only=True)
class PricedModel:
    """Whose price is asked for.

    Attributes:
        provider: The word before the slash in ``provider/model``.
        model: The model without its provider.
        own_server: Whether it is asked at an address of the user's, where the provider's public
            prices say nothing.
    """

    provider: str
    model: str
    own_server: bool = False

    @property
    def name(self) -> str:
        """``provider/model``."""
        return f"{self.provider}/{self.model}"

    @property
    def public(self) -> bool:
        """Whether it may have a price that everybody can know."""
        return self.provider in _SOLD and not self.own_server


class Prices:
    """Prices of models.

    Args:
        table: Model, as ``provider/model`` or a bare name, -> its price.
        public: Whether models that the table lacks are looked up in ``genai-prices``, where it is
            installed.
    """

    def __init__(self, table: Mapping[str, Price] | None = None, *, public: bool = True) -> None:
        self.table = dict(table or {})
        self._public = public

    def cost(
        self, model: PricedModel, usage: TokenUsage, *, at: float | None = None
    ) -> Cost | None:
        """Return what tokens cost, or ``None`` if that is unknown.

        Args:
            model: Whose tokens.
            usage: How many, and of which kind; those of a request without counts are unknown.
            at: When, in seconds since the epoch; by default now.
        """
        cached = (usage.cache_read_tokens or 0) + (usage.cache_write_tokens or 0)
        if usage.unmetered_requests or cached > usage.input_tokens:
            return None  # a server that counts more cached input than input counts wrong
        if (price := self._own(model)) is not None:
            return Cost(total=price.of(usage), source=USER_TABLE)
        return self._lookup(model, usage, at)

    def most(self, model: PricedModel, input_tokens: int, output_tokens: int) -> Cost | None:
        """Return the most that a call may cost: its input at the dearest of its kinds.

        Args:
            model: Whose tokens.
            input_tokens: Tokens sent.
            output_tokens: Tokens answered.
        """
        counts = {"input_tokens": input_tokens, "output_tokens": output_tokens}
        # A cache that the provider fills by itself is billed above plain input by some.
        kinds = (
            TokenUsage(**counts),
            TokenUsage(**counts, cache_read_tokens=0, cache_write_tokens=input_tokens),
        )
        costs = [cost for usage in kinds if (cost := self.cost(model, usage)) is not None]
        return max(costs, key=lambda cost: cost.total) if costs else None

    def knows(self, model: PricedModel) -> bool:
        """Return whether the model has a price."""
        return self.cost(model, TokenUsage(input_tokens=1, output_tokens=1)) is not None

    def to_json(self) -> dict[str, Any]:
        """Return the table and what else was looked into, for the record."""
        return {
            "table": prices_json(self.table),
            "public": public_source() if self._public else None,
        }

    def _own(self, model: PricedModel) -> Price | None:
        found = self.table.get(model.name)
        if found is None and model.provider == "openai":
            found = self.table.get(model.model)  # a bare name means this provider
        return found

    def _lookup(self, model: PricedModel, usage: TokenUsage, at: float | None) -> Cost | None:
        if not self._public or not model.public:
            return None
        price = public_price(model.provider, model.model, at)
        if price is None:
            return None
        return Cost(total=price.at_input(usage.input_tokens).of(usage), source=price.source)


def read_prices(value: object, path: str) -> dict[str, Price]:
    """Read the user's table: model -> US dollars per million tokens of each kind.

    Raises:
        ConfigError: It is none; all faults at once.
    """
    return fields.mapping_of(_price)(value, path)


def _price(value: object, path: str) -> Price:
    found = fields.read_fields(value, path, _PRICE)
    if missing := [name for name in ("input", "output") if name not in found]:
        raise fault(f"{path}.{missing[0]}", "is required: US dollars per million tokens")
    # By way of text: 0.1 dollars are meant, not the nearest binary number.
    return Price(**{name: Decimal(str(number)) for name, number in found.items()})


def prices_json(table: Mapping[str, Price]) -> dict[str, dict[str, float]]:
    """Return a table as JSON, as ``read_prices`` takes it."""
    return {
        model: {
            kind: float(dollars)
            for kind, dollars in attrs.asdict(price).items()
            if dollars is not None
        }
        for model, price in table.items()
    }


_DOLLARS = fields.number(0, 10**6)

_PRICE: Mapping[str, fields.Reader] = {
    "input": _DOLLARS,
    "output": _DOLLARS,
    "cache_read": _DOLLARS,
    "cache_write": _DOLLARS,
}
