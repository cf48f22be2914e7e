"""The rule of scaling is a pure function: each of its cases, and bounds that it never leaves."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_sdk.policies.host import HostState
from sandbox_sdk.policies.scaling import (
    CUT_SECONDS,
    HIGH_PRESSURE,
    LONGEST_BACK_OFF_SECONDS,
    MARGIN_BYTES,
    QUIET_SECONDS,
    PlacesState,
    ScaleState,
    ShelfState,
    back_off,
    decide,
)
from sandbox_sdk.values import GIB

CALM = HostState(memory_bytes=GIB, available_bytes=GIB, memory_pressure=0.0)
PRESSED = attrs.evolve(CALM, memory_pressure=HIGH_PRESSURE + 1)
FULL = attrs.evolve(CALM, available_bytes=MARGIN_BYTES - 1)
TAKEN = PlacesState(limit=8, held=8, waiting=3, least=1, most=20)


def ready(shelf: ShelfState, host: HostState = CALM, most: int = 16) -> tuple[float, str]:
    decision = decide(ScaleState(host=host, most_ready=most, shelves=(shelf,)))
    change = decision.of("ready", shelf.name)
    return (shelf.spare, "") if change is None else (change.after, change.reason)


def places(state: PlacesState, host: HostState = CALM) -> tuple[float, str]:
    change = decide(ScaleState(host=host, places=state)).of("places")
    return (state.limit, "") if change is None else (change.after, change.reason)


def test_each_miss_asks_for_half_of_one_more_up_to_the_most() -> None:
    assert ready(ShelfState(name="a", missed=1))[0] == 0.5
    assert ready(ShelfState(name="a", spare=2, missed=3)) == (3.5, "3 requests found none ready")
    assert ready(ShelfState(name="a", spare=3, missed=9), most=4)[0] == 4


def test_one_less_is_kept_after_a_quiet_while() -> None:
    shelf = ShelfState(name="a", spare=2.5, quiet_seconds=QUIET_SECONDS)
    assert ready(shelf)[0] == 1.5
    assert ready(attrs.evolve(shelf, quiet_seconds=QUIET_SECONDS - 1)) == (2.5, "")


@pytest.mark.parametrize("host", [PRESSED, FULL])
def test_none_is_kept_ready_while_memory_is_short(host: HostState) -> None:
    assert ready(ShelfState(name="a", spare=3, missed=2), host)[0] == 0


def test_failing_starts_back_off_twice_as_long_each_time() -> None:
    waits = [back_off(failures) for failures in range(12)]
    assert waits[0] == 0
    assert waits[1:4] == [0.25, 0.5, 1.0]
    assert waits[-1] == LONGEST_BACK_OFF_SECONDS
    failing = ShelfState(name="a", spare=1, missed=1, failures=3, failed_seconds=0.9)
    assert ready(failing)[0] == 0
    assert ready(attrs.evolve(failing, failed_seconds=1.1))[0] == 1.5


def test_places_grow_by_one_only_if_all_are_taken_and_others_wait() -> None:
    assert places(TAKEN) == (9, "all were taken and 3 wait")
    assert places(attrs.evolve(TAKEN, waiting=0)) == (8, "")
    assert places(attrs.evolve(TAKEN, held=7)) == (8, "")
    assert places(attrs.evolve(TAKEN, changed_seconds=0.1)) == (8, "")
    assert places(attrs.evolve(TAKEN, most=8)) == (8, "")


@pytest.mark.parametrize("host", [PRESSED, FULL])
def test_places_are_halved_while_memory_is_short_and_not_again_at_once(host: HostState) -> None:
    assert places(TAKEN, host)[0] == 4
    assert places(attrs.evolve(TAKEN, cut_seconds=CUT_SECONDS - 1), host) == (8, "")
    assert places(attrs.evolve(TAKEN, held=2), host)[0] == 1
    assert places(attrs.evolve(TAKEN, held=0, limit=1), host) == (1, "")


def test_without_pressure_in_the_kernel_memory_alone_decides() -> None:
    assert places(TAKEN, attrs.evolve(CALM, memory_pressure=None))[0] == 9
    assert places(TAKEN, attrs.evolve(FULL, memory_pressure=None))[0] == 4


numbers = st.integers(0, 500)
seconds = st.floats(0, 1e6)


@given(numbers, numbers, numbers, seconds, seconds, st.floats(0, 100), st.integers(0, 2 * GIB))
def test_no_state_leads_out_of_the_bounds(
    held: int,
    waiting: int,
    missed: int,
    since: float,
    cut: float,
    pressure: float,
    available: int,
) -> None:
    host = HostState(memory_bytes=GIB, available_bytes=available, memory_pressure=pressure)
    state = ScaleState(
        host=host,
        most_ready=16,
        shelves=(ShelfState(name="a", spare=3.5, missed=missed, quiet_seconds=since),),
        places=attrs.evolve(
            TAKEN, held=held, waiting=waiting, changed_seconds=since, cut_seconds=cut
        ),
    )
    decision = decide(state)
    assert decision == decide(state)
    for change in decision.changes:
        low, high = (1, 20) if change.what == "places" else (0, 16)
        assert low <= change.after <= high
        assert change.after != change.before
        assert change.reason
