"""What tokens cost: exact by the user's table, looked up where it lacks a model, else unknown."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import genai_prices
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_sdk.errors import ConfigError
from sandbox_sdk.experiments.budgets.cost import Cost, Price, total_cost
from sandbox_sdk.experiments.budgets.prices import USER_TABLE, PricedModel, Prices, read_prices
from sandbox_sdk.experiments.usage import TokenUsage

GPT = PricedModel(provider="openai", model="gpt-3.5-turbo")
THOUSAND = TokenUsage(input_tokens=1000, output_tokens=100, requests=1)


def test_public_prices_are_those_of_genai_prices_and_say_so() -> None:
    cost = Prices().cost(GPT, THOUSAND)
    assert cost is not None
    assert cost.total == Decimal("0.00065")
    assert cost.source.startswith("genai-prices ")
    claude = Prices().cost(PricedModel(provider="anthropic", model="claude-opus-4-8"), THOUSAND)
    assert claude is not None
    assert claude.total == Decimal("0.0075")


def test_a_model_that_nobody_knows_costs_an_unknown_amount_not_nothing() -> None:
    for model in (
        PricedModel(provider="openai", model="no-such-model"),
        PricedModel(provider="local", model="smollm2"),
        PricedModel(provider="mock", model="echo"),
        # The same name at another address may be any model, at any price.
        PricedModel(provider="openai", model="gpt-3.5-turbo", own_server=True),
    ):
        assert Prices().cost(model, THOUSAND) is None
        assert Prices().most(model, 10, 10) is None
        assert not Prices().knows(model)
    assert Prices(public=False).cost(GPT, THOUSAND) is None


def test_tokens_that_were_not_told_cost_an_unknown_amount() -> None:
    assert Prices().cost(GPT, TokenUsage(requests=1, unmetered_requests=1)) is None
    contradiction = TokenUsage(input_tokens=1, cache_read_tokens=2)
    assert Prices().cost(GPT, contradiction) is None
    table = Prices({"gpt-3.5-turbo": Price(input=Decimal(1), output=Decimal(1))})
    assert table.cost(GPT, contradiction) is None


def test_the_users_table_goes_before_public_prices_and_counts_caches() -> None:
    table = read_prices(
        {
            "openai/gpt-3.5-turbo": {"input": 2, "output": 10, "cache_read": 0.2, "cache_write": 4},
            "local/smollm2": {"input": 0, "output": 0},
        },
        "prices",
    )
    prices = Prices(table)
    usage = TokenUsage(
        input_tokens=1000, output_tokens=100, cache_read_tokens=300, cache_write_tokens=200
    )
    assert prices.cost(GPT, usage) == Cost(total=Decimal("0.00286"), source=USER_TABLE)
    free = prices.cost(PricedModel(provider="local", model="smollm2"), usage)
    assert free is not None
    assert free.total == 0
    # The table holds for a server of the user's own, too.
    own = PricedModel(provider="openai", model="gpt-3.5-turbo", own_server=True)
    assert prices.cost(own, usage) == prices.cost(GPT, usage)


def test_a_bare_name_in_the_table_is_openais() -> None:
    prices = Prices(read_prices({"m": {"input": 1, "output": 1}}, "prices"))
    assert prices.knows(PricedModel(provider="openai", model="m"))
    assert not prices.knows(PricedModel(provider="anthropic", model="m"))


def test_the_most_that_a_call_may_cost_has_its_input_at_the_dearest_kind() -> None:
    table = {"m": Price(input=Decimal(1), output=Decimal(0), cache_write=Decimal(3))}
    most = Prices(table).most(PricedModel(provider="openai", model="m"), 1_000_000, 5)
    assert most is not None
    assert most.total == 3


def test_sums_are_exact_and_unknown_if_a_part_is() -> None:
    tenth = Cost(total=Decimal("0.1"), source="a")
    other = Cost(total=Decimal("0.2"), source="b")
    assert total_cost([tenth, other]) == Cost(total=Decimal("0.3"), source="a, b")
    assert total_cost([tenth, None]) is None
    assert total_cost([]) is None
    assert Cost.from_json(tenth.to_json()) == tenth


def test_every_fault_of_a_table_is_told_with_its_path() -> None:
    with pytest.raises(ConfigError) as caught:
        read_prices({"m": {"input": -1, "output": "2"}, "n": {"input": 1}, "o": 3}, "prices")
    assert caught.value.faults == (
        "prices.m.input: must be at least 0 and at most 1e+06, not -1",
        "prices.m.output: must be a number, not '2'",
        "prices.n.output: is required: US dollars per million tokens",
        "prices.o: must be a mapping of names to values, not 3",
    )


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "gpt-3.5-turbo"),
        ("openai", "gpt-4o"),
        ("openai", "gpt-4o-search-preview"),
        ("openai", "gpt-5.5"),
        ("openai", "gpt-5.6-terra"),
        ("anthropic", "claude-opus-4-8"),
        ("anthropic", "claude-sonnet-4-5"),
    ],
)
@given(
    tokens=st.tuples(st.integers(0, 600_000), st.integers(0, 100_000)),
    cached=st.tuples(st.floats(0, 0.5), st.floats(0, 0.5)),
)
def test_public_costs_are_those_that_the_library_itself_computes(
    provider: str, model: str, tokens: tuple[int, int], cached: tuple[float, float]
) -> None:
    sent, answered = tokens
    read, written = (int(share * sent) for share in cached)
    moment = datetime(2026, 11, 1, tzinfo=UTC)
    expected = genai_prices.calc_price(
        genai_prices.Usage(
            input_tokens=sent,
            output_tokens=answered,
            cache_read_tokens=read,
            cache_write_tokens=written,
        ),
        model,
        provider_id=provider,
        genai_request_timestamp=moment,
    )
    usage = TokenUsage(
        input_tokens=sent,
        output_tokens=answered,
        cache_read_tokens=read,
        cache_write_tokens=written,
    )
    priced = PricedModel(provider=provider, model=model)
    cost = Prices().cost(priced, usage, at=moment.timestamp())
    assert cost is not None
    assert cost.total == expected.total_price
