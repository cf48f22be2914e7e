"""Places by memory: what is reserved, who is next, and that nobody waits for ever."""

from __future__ import annotations

from contextlib import AsyncExitStack

import anyio
import attrs
import pytest
from host import soon

from sandbox_sdk.engine.admission import FIRST_BYTES, ReservedAdmission
from sandbox_sdk.engine.scale_log import ScaleLog
from sandbox_sdk.errors import AdmissionTimeout
from sandbox_sdk.policies import SlotRequest
from sandbox_sdk.policies.host import HostState
from sandbox_sdk.policies.scaling import MARGIN_BYTES
from sandbox_sdk.values import GIB, MIB, Resources

pytestmark = pytest.mark.anyio


@attrs.define
class _Host:
    """A machine whose memory the test says."""

    available_bytes: int = GIB
    memory_pressure: float = 0.0
    peaks: dict[str, int] = attrs.field(factory=dict[str, int])
    scale_log: ScaleLog = attrs.field(factory=ScaleLog)

    async def read(self) -> HostState:
        return HostState(
            memory_bytes=2 * GIB,
            available_bytes=self.available_bytes,
            memory_pressure=self.memory_pressure,
        )

    def admission(self, *, places: int = 100, by_limit: bool = False) -> ReservedAdmission:
        return ReservedAdmission(
            self.read,
            self.peaks.get,
            places=places,
            most=places,
            scale_log=self.scale_log,
            reserve="limit" if by_limit else "peak",
        )


def wish(holder: str = "one", owner: str = "run", timeout: float = 0.05) -> SlotRequest:
    return SlotRequest(
        owner=owner,
        holder=holder,
        resources=Resources(memory_bytes=256 * MIB),
        template="python",
        timeout=timeout,
    )


async def most_at_once(admission: ReservedAdmission) -> int:
    """How many get a place before the next is refused."""
    async with AsyncExitStack() as held:
        for number in range(200):
            request = wish(owner=f"run {number}")
            try:
                await held.enter_async_context(admission.slot(request))
            except AdmissionTimeout:
                return number
    raise AssertionError("there was no end")


@pytest.mark.parametrize(
    ("peaks", "by_limit", "each"),
    [
        ({}, False, FIRST_BYTES),
        ({"python": 100 * MIB}, False, 120 * MIB),
        ({"python": 999 * MIB}, False, 256 * MIB),
        ({"other": 999 * MIB}, False, FIRST_BYTES),
        ({"python": MIB}, True, 256 * MIB),
    ],
    ids=["first", "peak", "limit-bounds-peak", "another-template", "whole-limit"],
)
async def test_each_reserves_what_its_like_have_needed(
    peaks: dict[str, int], by_limit: bool, each: int
) -> None:
    host = _Host(peaks=peaks)
    assert await most_at_once(host.admission(by_limit=by_limit)) == (GIB - MARGIN_BYTES) // each


async def test_places_bound_what_memory_would_allow() -> None:
    admission = _Host().admission(places=2)
    assert await most_at_once(admission) == 2
    assert (admission.held, admission.waiting, admission.reserved_bytes) == (0, 0, 0)


async def test_one_alone_may_always_start() -> None:
    async with _Host(available_bytes=0).admission().slot(wish()):
        pass


async def test_a_peak_seen_meanwhile_counts_for_those_that_run() -> None:
    host = _Host()
    admission = host.admission()
    async with admission.slot(wish()):
        assert admission.reserved_bytes == FIRST_BYTES
        host.peaks["python"] = 200 * MIB
        assert admission.reserved_bytes == 240 * MIB


async def test_a_place_goes_to_whoever_came_first_and_those_that_gave_up_are_passed_over() -> None:
    admission = _Host().admission(places=1)
    order: list[str] = []

    async def hold(name: str) -> None:
        async with admission.slot(wish(name, timeout=9)):
            order.append(name)
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as group, admission.slot(wish("first")):
        for name in "xyz":
            group.start_soon(hold, name)
            await anyio.wait_all_tasks_blocked()
        with anyio.move_on_after(0.01):
            async with admission.slot(wish("gives up")):
                raise AssertionError("there was no place")
        assert admission.waiting == 3
    assert order == ["x", "y", "z"]


async def test_a_run_waits_for_its_own_without_end_and_is_told_of_others() -> None:
    admission = _Host().admission(places=1)
    entered = anyio.Event()

    async def wait_for_own() -> None:
        async with admission.slot(wish("second")):
            entered.set()

    async with anyio.create_task_group() as group, admission.slot(wish("first")):
        group.start_soon(wait_for_own)
        with pytest.raises(AdmissionTimeout, match=r"me waited 0\.1 s .*: first;"):
            async with admission.slot(wish("me", owner="another", timeout=0.1)):
                pass
        assert not entered.is_set()
    assert entered.is_set()


async def test_pressure_halves_the_places_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox_sdk.engine.admission._FRESH_SECONDS", 0.0)
    host = _Host()
    admission = host.admission(places=4)
    async with AsyncExitStack() as held:
        for _ in range(4):
            await held.enter_async_context(admission.slot(wish()))
        host.memory_pressure = 50.0
        async with anyio.create_task_group() as group:
            group.start_soon(_hold, admission)
            assert await soon(lambda: admission.places == 2)
            group.cancel_scope.cancel()
    (scaled,) = host.scale_log.latest
    assert (scaled.change.before, scaled.change.after) == (4, 2)
    assert "waited for memory 50 %" in scaled.change.reason


async def _hold(admission: ReservedAdmission) -> None:
    async with admission.slot(wish("fifth", timeout=9)):
        await anyio.sleep_forever()
