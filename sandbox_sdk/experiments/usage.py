"""What a model's answer cost in tokens, and why it ended, in the same words for every provider."""

from __future__ import annotations

from typing import Literal

import attrs

StopReason = Literal[
    "stop", "max_tokens", "model_length", "tool_calls", "content_filter", "unknown"
]
"""Why the model ended its last answer, in the same words for every provider."""


@attrs.frozen(kw_only=True)
class TokenUsage:
    """Tokens of model calls. ``input_tokens`` counts all input, cached or not, as OpenAI does.

    Attributes:
        input_tokens: Tokens sent.
        output_tokens: Tokens answered, reasoning included.
        cache_read_tokens: Of those sent, the ones a cache held; ``None`` if not told.
        cache_write_tokens: Of those sent, the ones put into a cache; ``None`` if not told.
        reasoning_tokens: Of those answered, the ones of hidden reasoning; ``None`` if not told.
        requests: Requests that were sent, those sent again included.
        unmetered_requests: Of those answered, the ones whose tokens the provider did not tell; the
            counts above are then too low.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    requests: int = 0
    unmetered_requests: int = 0

    @property
    def total_tokens(self) -> int:
        """Tokens sent and answered."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: TokenUsage) -> TokenUsage:
        return TokenUsage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cache_read_tokens=_sum(self.cache_read_tokens, other.cache_read_tokens),
            cache_write_tokens=_sum(self.cache_write_tokens, other.cache_write_tokens),
            reasoning_tokens=_sum(self.reasoning_tokens, other.reasoning_tokens),
            requests=self.requests + other.requests,
            unmetered_requests=self.unmetered_requests + other.unmetered_requests,
        )


def _sum(first: int | None, second: int | None) -> int | None:
    return None if first is None and second is None else (first or 0) + (second or 0)
