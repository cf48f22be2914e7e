"""The time that one attempt may take."""

from __future__ import annotations

import math
import time

from sandbox_sdk.experiments.outcome import Outcome, stopped_by


class Clock:
    """Counts the seconds of an attempt against its limit.

    Args:
        limit: Seconds the attempt may take; ``None`` is no bound.
    """

    def __init__(self, limit: float | None) -> None:
        self._limit = limit
        self._started = time.monotonic()

    @property
    def left(self) -> float:
        """Seconds that are left; infinite without a limit, below 0 when it is over."""
        return math.inf if self._limit is None else self._limit - self.used

    @property
    def used(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def over(self) -> Outcome:
        """Return the outcome of an attempt that took too long."""
        return stopped_by("time", self._limit, self.used)
