"""How many tokens a model call will use, told before it is sent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import attrs

from sandbox_sdk.experiments.budgets.cost import Cost, total_cost
from sandbox_sdk.experiments.budgets.prices import PricedModel, Prices
from sandbox_sdk.experiments.models.base import ModelRequest
from sandbox_sdk.experiments.records.digests import canonical_json

FIRST_OUTPUT_TOKENS = 4096
"""Tokens expected of a model whose answers are not known yet, where no ``max_tokens`` bounds it."""

BYTES_PER_TOKEN = 3
"""Bytes of JSON that make at least one token, in ordinary text and code."""

HIDDEN_TOOL_TOKENS = 1024
"""Tokens that a provider may add by itself to a call with tools; only a hard budget counts them."""


@attrs.frozen(kw_only=True)
class CallSize:
    """What is known of a model call before it is sent.

    Attributes:
        model: Whose price it has.
        input_bytes: Bytes of its messages, tools and the schema of its answer as JSON.
        known_bytes: Of those, the ones that were in the conversation's last call already.
        known_tokens: The input tokens that the provider counted for that call.
        most_output: The most tokens it may answer, of all choices together; ``None`` where nothing
            bounds that.
        tools: Whether the model may use tools.
        only_text: Whether the messages hold nothing but text; else bytes bound nothing.
    """

    model: PricedModel
    input_bytes: int
    known_bytes: int = 0
    known_tokens: int = 0
    most_output: int | None = None
    tools: bool = False
    only_text: bool = True

    def input_tokens(self) -> int:
        """Return the input tokens to expect."""
        return self.known_tokens + -(-self._new_bytes // BYTES_PER_TOKEN)

    def most_input_tokens(self) -> int:
        """Return input tokens that are not exceeded: no token is made of less than a byte."""
        return self.input_bytes + (HIDDEN_TOOL_TOKENS if self.tools else 0)

    def lacks_bound(self) -> str:
        """Return what the call lacks for its tokens to be bounded, empty if nothing."""
        if self.most_output is None:
            return 'a call without "max_tokens" may answer any number of tokens; set it'
        if not self.only_text:
            return "the tokens of an image, or other content but text, cannot be told; leave it out"
        return ""

    @property
    def _new_bytes(self) -> int:
        return max(0, self.input_bytes - self.known_bytes)


def call_size(
    model: PricedModel, request: ModelRequest, *, known_bytes: int = 0, known_tokens: int = 0
) -> CallSize:
    """Measure a call.

    Args:
        model: Whose price it has.
        request: The call.
        known_bytes: Bytes of the conversation's last call, whose tokens the provider counted.
        known_tokens: Those tokens.
    """
    parameters = request.parameters
    most: int | None = parameters.get("max_tokens")
    form = parameters.get("response_format")  # a schema is shown to the model, too
    return CallSize(
        model=model,
        input_bytes=len(canonical_json([request.messages, request.tools, form])),
        known_bytes=known_bytes,
        known_tokens=known_tokens,
        most_output=None if most is None else most * parameters.get("n", 1),
        tools=bool(request.tools),
        only_text=all(_is_text(message.get("content")) for message in request.messages),
    )


# Any: a message's content is JSON in OpenAI's form.
def _is_text(content: Any) -> bool:
    match content:
        case None | str():
            return True
        case list() | tuple():
            return all(map(_is_text, cast("Sequence[Any]", content)))
        case {"type": "text"}:
            return True
        case _:
            return False


@attrs.frozen(kw_only=True)
class PlannedTrials:
    """Trials that are alike in what they will ask first.

    Attributes:
        trials: How many.
        call: The first call of each.
        turns: Calls that each may make at most; above 1 only where tools can ask for more.
    """

    trials: int
    call: CallSize
    turns: int = 1


@attrs.frozen(kw_only=True)
class SpendEstimate:
    """What a run is expected to spend, before its first call, if each trial makes one call.

    Attributes:
        calls: The calls: one for each trial, and one for each time that a grader judges.
        most_calls: The calls there can be where tools ask for more; each of those sends the whole
            conversation again.
        input_tokens: Tokens that are sent.
        output_tokens: Tokens that are answered, where every answer is as long as it may be.
        cost: US dollars; ``None`` if a model has no price.
    """

    calls: int = 0
    most_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: Cost | None = None


def estimate_spend(plans: Iterable[PlannedTrials], prices: Prices) -> SpendEstimate:
    """Return what planned trials are expected to spend.

    Args:
        plans: The trials.
        prices: What tokens cost.
    """
    total = SpendEstimate()
    costs: list[Cost | None] = []
    for plan in plans:
        call = plan.call
        sent, answered = call.input_tokens(), call.most_output or FIRST_OUTPUT_TOKENS
        cost = prices.most(call.model, sent, answered)
        costs.append(cost and attrs.evolve(cost, total=cost.total * plan.trials))
        total = SpendEstimate(
            calls=total.calls + plan.trials,
            most_calls=total.most_calls + plan.trials * plan.turns,
            input_tokens=total.input_tokens + sent * plan.trials,
            output_tokens=total.output_tokens + answered * plan.trials,
        )
    return attrs.evolve(total, cost=total_cost(costs))
