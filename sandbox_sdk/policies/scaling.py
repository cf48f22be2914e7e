"""How many sandboxes stand ready, and how many may run at once: one pure function decides both.

Nothing here looks at a clock, a file or a sandbox: equal states give equal decisions, so a rule can
be tried out on what was recorded.
"""

from __future__ import annotations

import math

import attrs

from sandbox_sdk.policies.host import HostState
from sandbox_sdk.values import MIB

QUIET_SECONDS = 120.0
"""After so long without a miss one ready sandbox less is kept."""

MARGIN_BYTES = 64 * MIB
"""Memory that must stay free on the host beside what sandboxes may take."""

HIGH_PRESSURE = 10.0
"""Percent of the last ten seconds waited for memory from which on there are too many."""

RAISE_SECONDS, CUT_SECONDS = 0.5, 10.0
"""Shortest time from a change of the places to one more, and from one cut to the next: pressure is
an average of ten seconds, which tells of the last cut only after them."""

FIRST_BACK_OFF_SECONDS, LONGEST_BACK_OFF_SECONDS = 0.25, 60.0
"""How long none is made ahead after a start failed, and after many did in a row."""

_GROWTH = 0.5  # of one more, for each miss


@attrs.frozen(kw_only=True)
class ShelfState:
    """The sandboxes of one shape that stand ready.

    Attributes:
        name: Names the shape in events.
        spare: How many are kept; the next whole number.
        missed: Requests that found none ready, since the last decision.
        quiet_seconds: Time since ``spare`` last changed.
        failures: Starts in a row that failed.
        failed_seconds: Time since the last one of them.
    """

    name: str
    spare: float = 0.0
    missed: int = 0
    quiet_seconds: float = 0.0
    failures: int = 0
    failed_seconds: float = math.inf


@attrs.frozen(kw_only=True)
class PlacesState:
    """The places for sandboxes that run at once.

    Attributes:
        limit: How many there are.
        held: How many are taken.
        waiting: How many wait for one.
        least: Never fewer.
        most: Never more.
        changed_seconds: Time since ``limit`` last changed.
        cut_seconds: Time since it was last cut.
    """

    limit: int
    held: int
    waiting: int
    least: int
    most: int
    changed_seconds: float = math.inf
    cut_seconds: float = math.inf


@attrs.frozen(kw_only=True)
class ScaleState:
    """All that a decision is made of.

    Attributes:
        host: What the machine has left.
        most_ready: Sandboxes that may stand ready, of all shapes together.
        shelves: Those that do.
        places: Those that run; ``None`` where nobody waits for places.
    """

    host: HostState
    most_ready: int = 0
    shelves: tuple[ShelfState, ...] = ()
    places: PlacesState | None = None


@attrs.frozen(kw_only=True)
class Change:
    """One number that is to change, and why.

    Attributes:
        what: ``ready`` of a shape, or ``places``.
        name: The shape; empty for places.
        before: What it was.
        after: What it is to be.
        reason: Why, in words.
    """

    what: str
    name: str
    before: float
    after: float
    reason: str


@attrs.frozen(kw_only=True)
class Decision:
    """What is to change; empty if nothing is."""

    changes: tuple[Change, ...] = ()

    def of(self, what: str, name: str = "") -> Change | None:
        """Return the change of one number, if it changes."""
        found = [each for each in self.changes if (each.what, each.name) == (what, name)]
        return found[0] if found else None


def decide(state: ScaleState) -> Decision:
    """Return what is to change.

    Ready sandboxes grow by half of one with each miss and shrink by one with each quiet while, to
    none where starts fail or memory is short. Places grow by one where all are taken and others
    wait, and are halved where something waited for memory (additive increase, multiplicative
    decrease).
    """
    changes = [_shelf(shelf, state) for shelf in state.shelves]
    if state.places is not None:
        changes.append(_places(state.places, state.host))
    return Decision(changes=tuple(change for change in changes if change is not None))


def back_off(failures: int) -> float:
    """Return how many seconds none is made ahead after so many starts in a row failed."""
    if not failures:
        return 0.0
    doubled = FIRST_BACK_OFF_SECONDS * 2.0 ** min(failures - 1, 30)
    return min(LONGEST_BACK_OFF_SECONDS, doubled)


def _shelf(shelf: ShelfState, state: ScaleState) -> Change | None:
    wait = back_off(shelf.failures)
    if shelf.failures and shelf.failed_seconds < wait:
        reason = f"{shelf.failures} starts in a row failed: none is made ahead for {wait:g} s"
        return _ready(shelf, 0.0, reason)
    if why := _short(state.host):
        return _ready(shelf, 0.0, f"{why}: none is kept ready")
    if shelf.missed:
        most = float(state.most_ready)
        grown = min(most, shelf.spare + _GROWTH * shelf.missed)
        found = "1 request" if shelf.missed == 1 else f"{shelf.missed} requests"
        return _ready(shelf, grown, f"{found} found none ready")
    if shelf.spare and shelf.quiet_seconds >= QUIET_SECONDS:
        less = max(0.0, shelf.spare - 1)
        return _ready(shelf, less, f"{shelf.quiet_seconds:.0f} s without a miss")
    return None


def _ready(shelf: ShelfState, after: float, reason: str) -> Change | None:
    if after == shelf.spare:
        return None
    return Change(what="ready", name=shelf.name, before=shelf.spare, after=after, reason=reason)


def _places(places: PlacesState, host: HostState) -> Change | None:
    after, reason = places.limit, ""
    if (why := _short(host)) and places.cut_seconds >= CUT_SECONDS:
        # From what is taken: places that nobody took cost no memory, and their loss frees none.
        after, reason = min(places.limit, places.held) // 2, why
    full = places.waiting and places.held >= places.limit
    if full and not why and places.changed_seconds >= RAISE_SECONDS:
        after, reason = places.limit + 1, f"all were taken and {places.waiting} wait"
    after = max(places.least, min(places.most, after))
    if after == places.limit:
        return None
    return Change(what="places", name="", before=places.limit, after=after, reason=reason)


def _short(host: HostState) -> str:
    """Why there is too little memory, or nothing."""
    if host.memory_pressure is not None and host.memory_pressure > HIGH_PRESSURE:
        return f"something waited for memory {host.memory_pressure:.0f} % of the last 10 s"
    if host.available_bytes < MARGIN_BYTES:
        return f"only {host.available_bytes // MIB} MiB of memory are left"
    return ""
