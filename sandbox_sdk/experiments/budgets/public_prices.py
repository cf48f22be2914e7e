"""Prices that everybody can know, from the data that the package ``genai-prices`` brings along."""

from __future__ import annotations

import importlib
import time
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache, lru_cache
from types import ModuleType
from typing import Any

import attrs

from sandbox_sdk.experiments.budgets.cost import Price

_PERIOD = 60  # seconds for which a price is looked up once: the library takes 0.1 ms for it


@cache
def load_public_prices() -> ModuleType | None:
    """Return ``genai-prices``, or ``None`` if it is not installed. The first call takes a second.

    A program that must not wait calls it in a thread before it asks for a price.
    """
    try:
        return importlib.import_module("genai_prices")
    except ImportError:
        return None


def public_source() -> str | None:
    """Return whose prices they are and of which version; ``None`` if there are none."""
    library = load_public_prices()
    return None if library is None else f"genai-prices {library.__version__}"


# Any: the library's prices are decimals, or tiers of them.
@attrs.frozen(kw_only=True)
class PublicPrice:
    """What a model costs at some time, in US dollars per million tokens; more for a long input.

    Attributes:
        input: Tokens sent.
        output: Tokens answered.
        cache_read: Of those sent, the ones a cache held.
        cache_write: Of those sent, the ones put into a cache.
        source: Whose price it is.
    """

    input: Any
    output: Any
    cache_read: Any
    cache_write: Any
    source: str

    def at_input(self, tokens: int) -> Price:
        """Return what tokens cost in a call with so many tokens of input."""
        return Price(
            input=_rate(self.input, tokens),
            output=_rate(self.output, tokens),
            cache_read=None if self.cache_read is None else _rate(self.cache_read, tokens),
            cache_write=None if self.cache_write is None else _rate(self.cache_write, tokens),
        )


def public_price(provider: str, model: str, at: float | None = None) -> PublicPrice | None:
    """Return what a model costs, or ``None`` if nobody knows.

    Args:
        provider: The provider, by the library's name.
        model: The model, as it is asked for.
        at: When, in seconds since the epoch; by default now.
    """
    moment = time.time() if at is None else at
    return _looked_up(provider, model, int(moment // _PERIOD))


@lru_cache(maxsize=1024)
def _looked_up(provider: str, model: str, period: int) -> PublicPrice | None:
    library = load_public_prices()
    if library is None:
        return None
    moment = datetime.fromtimestamp(period * _PERIOD, UTC)
    usage = library.Usage(input_tokens=1, output_tokens=1)
    try:
        found = library.calc_price(
            usage, model, provider_id=provider, genai_request_timestamp=moment
        )
    except LookupError:
        return None
    price = found.model_price
    if price.input_mtok is None or price.output_mtok is None:
        return None  # sold by the second or by the image
    return PublicPrice(
        input=price.input_mtok,
        output=price.output_mtok,
        cache_read=price.cache_read_mtok,
        cache_write=price.cache_write_mtok,
        source=f"genai-prices {library.__version__}",
    )


def _rate(price: Any, tokens: int) -> Decimal:
    if isinstance(price, Decimal):
        return price
    rate: Decimal = price.base
    for tier in price.tiers:
        if tokens > tier.start:
            rate = tier.price
    return rate
