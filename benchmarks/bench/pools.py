"""A pool of sandboxes in a simulation: how many stand ready is decided by one of several rules."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Sequence
from typing import Protocol

import attrs

from sandbox_sdk.policies.host import HostState
from sandbox_sdk.policies.scaling import ScaleState, ShelfState, decide
from sandbox_sdk.values import GIB

TICK = 0.1
SLOTS, AT_ONCE, START_SECONDS = 32, 4, 1.0
MEDIAN_SECONDS, SIGMA = 2.7, 0.8
MOST_READY = 16


@attrs.frozen(kw_only=True)
class View:
    """What a rule sees.

    Attributes:
        now: Seconds since the beginning.
        running: Sandboxes that are used.
        waiting: Requests that wait for one.
        ready: Sandboxes that stand ready.
        missed: Requests since the last look that found none ready.
    """

    now: float
    running: int
    waiting: int
    ready: int
    missed: int


class Rule(Protocol):
    """Decides how many sandboxes stand ready, beside those that are waited for."""

    def spare(self, view: View) -> int:
        """Return how many; called once in every tick."""
        ...


@attrs.define
class Fixed:
    """Always the same number."""

    number: int

    def spare(self, view: View) -> int:
        """Return it."""
        return self.number


@attrs.define
class Ours:
    """``decide``, as the engine's pool asks it."""

    kept: float = 0.0
    changed_at: float = 0.0

    def spare(self, view: View) -> int:
        """Return what it decides on a machine with memory left."""
        shelf = ShelfState(
            name="", spare=self.kept, missed=view.missed, quiet_seconds=view.now - self.changed_at
        )
        host = HostState(memory_bytes=GIB * 64, available_bytes=GIB * 32)
        decided = decide(ScaleState(host=host, most_ready=MOST_READY, shelves=(shelf,)))
        if (change := decided.of("ready")) is not None:
            self.kept, self.changed_at = change.after, view.now
        return math.ceil(self.kept)


@attrs.define
class Utilisation:
    """As the horizontal autoscaler of Kubernetes: by use of all there are, every 15 seconds.

    Source: its documentation: a ratio within a tenth of the wanted one is left alone, and down goes
    what was the highest recommendation of the last 300 seconds.
    """

    wanted: float = 0.7
    looked_at: float = -math.inf
    total: int = 1
    past: deque[tuple[float, int]] = attrs.field(factory=deque[tuple[float, int]])

    def spare(self, view: View) -> int:
        """Return what of the total is not used."""
        if view.now - self.looked_at >= 15:
            self.looked_at = view.now
            there = max(1, view.running + view.ready)
            ratio = (view.running + view.waiting) / there / self.wanted
            advised = there if abs(ratio - 1) <= 0.1 else math.ceil(there * ratio)
            advised = min(advised, max(2 * there, there + 4), SLOTS)
            self.past.append((view.now, advised))
            while self.past[0][0] < view.now - 300:
                self.past.popleft()
            self.total = max(number for _, number in self.past)
        return max(0, self.total - view.running)


@attrs.define
class Concurrency:
    """As the autoscaler of Knative: by mean concurrency of 60 seconds, or of 6 in a panic.

    Source: its documentation: a panic begins at twice what stands ready, lasts as long as the
    window, and goes never down.
    """

    wanted: float = 0.7
    past: deque[tuple[float, int]] = attrs.field(factory=deque[tuple[float, int]])
    panic_until: float = -math.inf
    total: int = 0

    def spare(self, view: View) -> int:
        """Return what of the total is not used."""
        self.past.append((view.now, view.running + view.waiting))
        while self.past[0][0] < view.now - 60:
            self.past.popleft()
        stable = sum(number for _, number in self.past) / len(self.past)
        recent = [number for at, number in self.past if at >= view.now - 6]
        panic = sum(recent) / len(recent)
        if panic / self.wanted >= 2 * max(1, view.running + view.ready):
            self.panic_until = view.now + 60
        if view.now < self.panic_until:
            self.total = max(self.total, math.ceil(panic / self.wanted))
        else:
            self.total = math.ceil(stable / self.wanted)
        return max(0, min(self.total, SLOTS) - view.running)


@attrs.frozen(kw_only=True)
class Outcome:
    """What a rule gave.

    Attributes:
        hot: The share of requests that found a sandbox ready.
        wait_p95: The 95th percentile of what all waited, in seconds.
        idle_seconds: Sandbox-seconds that stood ready.
        discarded: Sandboxes that were made and never used.
    """

    hot: float
    wait_p95: float
    idle_seconds: float
    discarded: int


def steady(seed: int, seconds: float) -> list[float]:
    """Return times of requests that come by chance, 1.2 a second."""
    rng, now, times = random.Random(seed), 0.0, list[float]()
    while (now := now + rng.expovariate(1.2)) < seconds:
        times.append(now)
    return times


def bursts(seed: int, seconds: float) -> list[float]:
    """Return times of requests that come 12 at a time, every half minute or so."""
    rng, now, times = random.Random(seed), 0.0, list[float]()
    while (now := now + rng.uniform(20, 60)) < seconds:
        times += [now + rng.uniform(0, 0.5) for _ in range(12)]
    return sorted(times)


def simulate(rule: Rule, arrivals: Sequence[float], seed: int, seconds: float) -> Outcome:
    """Let requests come, and return what a rule made of them."""
    rng = random.Random(seed)
    coming, waiting = deque(arrivals), deque[float]()
    ready = missed = discarded = 0
    starting, ends, waits = list[float](), list[float](), list[float]()
    idle = 0.0

    def take(now: float, came: float) -> None:
        waits.append(now - came)
        ends.append(now + rng.lognormvariate(math.log(MEDIAN_SECONDS), SIGMA))

    for tick in range(int(seconds / TICK)):
        now = tick * TICK
        ends = [end for end in ends if end > now]
        ready += sum(begun <= now for begun in starting)
        starting = [begun for begun in starting if begun > now]
        while waiting and ready:
            ready -= 1
            take(now, waiting.popleft())
        while coming and coming[0] <= now:
            came = coming.popleft()
            if ready and not waiting:
                ready -= 1
                take(came, came)
            else:
                missed += 1
                waiting.append(came)
        view = View(now=now, running=len(ends), waiting=len(waiting), ready=ready, missed=missed)
        missed = 0
        spare = min(rule.spare(view), MOST_READY)
        surplus = max(0, ready - spare - len(waiting))
        ready, discarded = ready - surplus, discarded + surplus
        room = SLOTS - len(ends) - ready - len(starting)
        wanted = spare + len(waiting) - ready - len(starting)
        begun = max(0, min(wanted, room, AT_ONCE - len(starting)))
        starting += [now + START_SECONDS] * begun
        idle += ready * TICK
    waits.sort()
    hot = sum(wait == 0 for wait in waits) / max(1, len(waits))
    last = waits[min(len(waits) - 1, math.ceil(len(waits) * 0.95) - 1)] if waits else 0.0
    return Outcome(hot=hot, wait_p95=last, idle_seconds=idle, discarded=discarded)
