"""What an attempt may still use: time, tokens, tool calls."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

from sandbox_sdk.experiments.config import Limits
from sandbox_sdk.experiments.outcome import Outcome, stopped_by


class Allowance:
    """Counts what an attempt uses against its limits, from its making on.

    Args:
        limits: The attempt's limits.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._started = time.monotonic()
        self._tokens = 0

    @property
    def seconds(self) -> float:
        """Seconds that are left; infinite without a limit, below 0 when time is over."""
        return math.inf if self._limits.time is None else self._limits.time - self._used

    def spend(self, tokens: int) -> None:
        """Count the tokens of a call."""
        self._tokens += tokens

    def out_of_time(self) -> Outcome:
        """Return the outcome of an attempt that took too long."""
        return stopped_by("time", self._limits.time, self._used)

    def out_of_tokens(self) -> Outcome | None:
        """Return the outcome of an attempt that has no tokens left, or nothing if it has."""
        limit = self._limits.tokens
        if limit is None or self._tokens < limit:
            return None
        return stopped_by("tokens", limit, self._tokens)

    def out_of_tools(self, calls: int, seconds: float) -> Outcome | None:
        """Return the outcome of an attempt that may run no more tools, or nothing if it may."""
        limits = self._limits
        if self.seconds <= 0:
            return self.out_of_time()
        if limits.tool_calls is not None and calls >= limits.tool_calls:
            return stopped_by("tool_calls", limits.tool_calls, calls)
        if limits.tool_time is not None and seconds >= limits.tool_time:
            return stopped_by("tool_time", limits.tool_time, seconds)
        return None

    def tool_timeout(self, seconds: float) -> float:
        """Return how long the next tool call may take, after others took ``seconds``."""
        left = min(self._limits.tool_timeout, self.seconds)
        if self._limits.tool_time is not None:
            left = min(left, self._limits.tool_time - seconds)
        return left

    # Any: parameters are JSON.
    def cap(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a call's parameters with its answer capped by the tokens that are left."""
        if self._limits.tokens is None:
            return parameters
        left = self._limits.tokens - self._tokens
        return {**parameters, "max_tokens": min(left, parameters.get("max_tokens", left))}

    @property
    def _used(self) -> float:
        return time.monotonic() - self._started
