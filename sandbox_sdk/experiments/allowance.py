"""What an attempt may still use: time, tokens, dollars, messages, tool calls."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from sandbox_sdk.experiments.budgets.accounts import Amount
from sandbox_sdk.experiments.config import Limits
from sandbox_sdk.experiments.results.outcome import Outcome, stopped_by

MOST_FILTERED = 3
"""Answers that a content filter may end one after the other; more would end the same way."""


class Allowance:
    """Counts what an attempt uses against its limits, from its making on.

    Args:
        limits: The attempt's limits.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._started = time.monotonic()
        self._waited = 0.0
        self._tokens = 0
        self._cost = Decimal(0)
        self._bad_calls = 0
        self._filtered = 0

    @property
    def time_left(self) -> float:
        """Seconds until the attempt is over, waits included; infinite without a limit."""
        return math.inf if self._limits.time is None else self._limits.time - self._used

    @property
    def seconds(self) -> float:
        """Seconds of work that are left; infinite without a limit, below 0 when time is over."""
        working = self._limits.working_time
        return self.time_left if working is None else min(self.time_left, working - self._worked)

    def wait(self, seconds: float) -> None:
        """Take seconds of waiting, for a provider or for room in a budget, out of the work."""
        self._waited += seconds

    def spend(self, amount: Amount) -> None:
        """Count what a call came to."""
        self._tokens += amount.tokens
        self._cost += amount.cost or 0

    def out_of_time(self) -> Outcome:
        """Return the outcome of an attempt that took too long."""
        working = self._limits.working_time
        if working is not None and self._worked >= working:
            return stopped_by("working_time", working, self._worked)
        return stopped_by("time", self._limits.time, self._used)

    def out_of_tokens(self) -> Outcome | None:
        """Return the outcome of an attempt that has no tokens left, or nothing if it has."""
        limit = self._limits.tokens
        if limit is None or self._tokens < limit:
            return None
        return stopped_by("tokens", limit, self._tokens)

    def out_of_calls(self, messages: int) -> Outcome | None:
        """Return the outcome of an attempt that may not call its model again, if it may not.

        Args:
            messages: How many the conversation has.
        """
        limits = self._limits
        if self.seconds <= 0:
            return self.out_of_time()
        if limits.messages is not None and messages >= limits.messages:
            return stopped_by("messages", limits.messages, messages)
        if limits.cost is not None and self._cost >= limits.cost:
            return stopped_by("cost", limits.cost, float(self._cost))
        return self.out_of_tokens()

    def out_of_patience(self, *, filtered: bool) -> Outcome | None:
        """Return the outcome of an attempt whose model is stopped by filters again and again.

        Args:
            filtered: Whether a content filter ended its last answer.
        """
        self._filtered = self._filtered + 1 if filtered else 0
        if self._filtered < MOST_FILTERED:
            return None
        return stopped_by("content_filter", MOST_FILTERED, self._filtered)

    def too_many_bad_calls(self, *, bad: bool) -> Outcome | None:
        """Return the outcome of an attempt whose model cannot form a tool call, if it cannot.

        Args:
            bad: Whether the last call could not be read, or was of no tool there is.
        """
        self._bad_calls = self._bad_calls + 1 if bad else 0
        limit = self._limits.bad_calls
        if limit is None or self._bad_calls < limit:
            return None
        return stopped_by("bad_calls", limit, self._bad_calls)

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

    @property
    def _worked(self) -> float:
        return self._used - self._waited
