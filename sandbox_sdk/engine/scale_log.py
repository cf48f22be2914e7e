"""What was scaled and why: every change of a client's numbers, for people to look at."""

from __future__ import annotations

import logging
import time
from collections import deque

import attrs

from sandbox_sdk.policies.scaling import Change, Decision

KEPT = 1000
"""How many of the latest changes are kept."""

log = logging.getLogger("sandbox_sdk.scale")


@attrs.frozen(kw_only=True)
class Scaled:
    """A change that was made.

    Attributes:
        at: Seconds since the epoch.
        change: What changed, and why.
    """

    at: float
    change: Change


class ScaleLog:
    """Keeps and logs changes; shared by all that scale something of one client."""

    def __init__(self) -> None:
        self._kept: deque[Scaled] = deque(maxlen=KEPT)

    def add(self, decision: Decision) -> None:
        """Take note of what was changed."""
        for change in decision.changes:
            self._kept.append(Scaled(at=time.time(), change=change))
            log.info("pool.scaled", extra={"change": attrs.asdict(change)})

    @property
    def latest(self) -> tuple[Scaled, ...]:
        """The latest changes, oldest first."""
        return tuple(self._kept)
