"""Slows those down who fail, and nobody else: a token bucket for each address, on failures only."""

from __future__ import annotations

import contextlib
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable

import attrs

BURST = 10
"""Failures that an address may have at once."""

PER_SECOND = 1.0
"""Failures a second that it may have after them."""

_MOST = 10_000  # addresses that are remembered, so that a flood of them takes no memory


@attrs.define
class _Bucket:
    left: float
    at: float


class FailureLimiter:
    """Counts failures. It is asked after a secret was looked up and found wrong.

    So a correct secret is never refused, however many wrong ones came from the same address.

    Args:
        clock: Seconds of any clock that does not go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def failed(self, who: str) -> float | None:
        """Note a failure; return the seconds to wait if there were too many, else ``None``.

        Args:
            who: Where the request came from; the IPv6 addresses of one /64, which is what a
                single machine is given, are one.
        """
        who = _network(who)
        now = self._clock()
        bucket = self._buckets.pop(who, None) or _Bucket(left=BURST, at=now)
        bucket.left = min(BURST, bucket.left + (now - bucket.at) * PER_SECOND)
        bucket.at = now
        self._buckets[who] = bucket  # the last to be forgotten
        if len(self._buckets) > _MOST:
            self._buckets.popitem(last=False)
        if bucket.left >= 1:
            bucket.left -= 1
            return None
        return (1 - bucket.left) / PER_SECOND


def _network(who: str) -> str:
    if ":" in who:
        with contextlib.suppress(ValueError):  # it is a name of another kind
            return str(ipaddress.IPv6Network((who.partition("%")[0], 64), strict=False))
    return who
