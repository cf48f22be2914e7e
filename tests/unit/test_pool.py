"""How many sandboxes are kept ready, and that each is handed out once and alive."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import anyio
import attrs
import pytest
from host import soon

from sandbox_sdk.engine.blank import Blank, Shape
from sandbox_sdk.engine.pool import Pool
from sandbox_sdk.engine.scale_log import ScaleLog
from sandbox_sdk.engine.supervisor import Supervisor
from sandbox_sdk.errors import LaunchError
from sandbox_sdk.policies import scaling
from sandbox_sdk.policies.host import HostState
from sandbox_sdk.values import GIB, Resources, SandboxSpec

pytestmark = pytest.mark.anyio

SMALL = SandboxSpec(name="small", resources=Resources(memory_bytes=2**26))
LARGE = SandboxSpec(name="large", resources=Resources(memory_bytes=2**30))


@attrs.define(eq=False)
class _Launched:
    ended: anyio.Event = attrs.field(factory=anyio.Event)


@attrs.define(eq=False)
class _Ready:
    """Stands in for a sandbox: the pool looks only at whether it has ended."""

    spec: SandboxSpec
    launched: _Launched = attrs.field(factory=_Launched)


@attrs.define
class _Maker:
    """Makes and ends them, and counts both."""

    made: list[_Ready] = attrs.field(factory=list[_Ready])
    ended: list[_Ready] = attrs.field(factory=list[_Ready])
    failing: bool = False
    tried: int = 0
    available_bytes: int = GIB
    scale_log: ScaleLog = attrs.field(factory=ScaleLog)

    async def host(self) -> HostState:
        return HostState(memory_bytes=GIB, available_bytes=self.available_bytes)

    def pool(self, supervisor: Supervisor, *, most: int, scaled: bool = True) -> Pool:
        return Pool(
            self.make,
            self.end,
            supervisor,
            most=most,
            read_host=self.host,
            scale_log=self.scale_log,
            scaled=scaled,
        )

    async def make(self, spec: SandboxSpec) -> Blank:
        self.tried += 1
        if self.failing:
            raise LaunchError("the host is full")
        self.made.append(_Ready(spec))
        return cast(Blank, self.made[-1])

    async def end(self, blank: Blank) -> None:
        self.ended.append(cast(_Ready, blank))


def shape(spec: SandboxSpec) -> Shape:
    return Shape.of(spec, "python")


@pytest.fixture
async def supervisor() -> AsyncIterator[Supervisor]:
    supervisor = Supervisor()
    yield supervisor
    await supervisor.aclose()


@pytest.fixture
def maker() -> _Maker:
    return _Maker()


@pytest.fixture
def pool(maker: _Maker, supervisor: Supervisor) -> Pool:
    return maker.pool(supervisor, most=3)


async def test_a_miss_makes_one_ready_and_a_hit_replaces_it(pool: Pool, maker: _Maker) -> None:
    assert await pool.take(shape(SMALL), SMALL) is None
    assert await soon(lambda: len(maker.made) == 1)
    first = await pool.take(shape(SMALL), SMALL)
    assert first is cast(Any, maker.made[0])
    assert await soon(lambda: len(maker.made) == 2)
    assert await pool.take(shape(SMALL), SMALL) is cast(Any, maker.made[1])
    assert maker.ended == []


async def test_one_shape_is_never_handed_out_for_another(pool: Pool, maker: _Maker) -> None:
    await pool.take(shape(SMALL), SMALL)
    assert await soon(lambda: len(maker.made) == 1)
    assert await pool.take(shape(LARGE), LARGE) is None
    named = attrs.evolve(SMALL, name="another", env={"A": "b"}, timeout=1.0)
    assert await pool.take(shape(named), named) is cast(Any, maker.made[0])


async def test_many_misses_make_more_ready_but_never_more_than_the_most(
    pool: Pool, maker: _Maker
) -> None:
    for _ in range(20):
        await pool.take(shape(SMALL), SMALL)
    await pool.take(shape(LARGE), LARGE)
    assert await soon(lambda: len(maker.made) - len(maker.ended) >= 3)
    await anyio.wait_all_tasks_blocked()
    ready = [await pool.take(shape(SMALL), SMALL) for _ in range(3)]
    assert all(ready)


async def test_a_ready_one_that_ended_is_given_back_and_not_handed_out(
    pool: Pool, maker: _Maker
) -> None:
    await pool.take(shape(SMALL), SMALL)
    assert await soon(lambda: len(maker.made) == 1)
    maker.made[0].launched.ended.set()
    assert await pool.take(shape(SMALL), SMALL) is None
    assert maker.ended == [maker.made[0]]


async def test_a_start_that_fails_is_not_tried_again_until_the_next_request(
    pool: Pool, maker: _Maker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="sandbox_sdk.pool")
    maker.failing = True
    await pool.take(shape(SMALL), SMALL)
    assert await soon(lambda: "pool.start_failed" in caplog.messages)
    await anyio.wait_all_tasks_blocked()
    assert caplog.messages.count("pool.start_failed") == 1
    maker.failing = False
    assert await pool.take(shape(SMALL), SMALL) is None
    assert await soon(lambda: len(maker.made) == 1)


async def test_what_nobody_asks_for_is_given_up(
    pool: Pool, maker: _Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scaling, "QUIET_SECONDS", 0.05)
    await pool.take(shape(SMALL), SMALL)
    assert await soon(lambda: len(maker.made) == 1)
    assert await soon(lambda: maker.ended == maker.made)


async def test_none_is_made_where_memory_is_short(pool: Pool, maker: _Maker) -> None:
    maker.available_bytes = scaling.MARGIN_BYTES
    await pool.take(shape(SMALL), SMALL)
    await anyio.wait_all_tasks_blocked()
    assert maker.made == []


async def test_none_is_kept_at_size_0_or_after_closing(
    maker: _Maker, supervisor: Supervisor, pool: Pool
) -> None:
    none = maker.pool(supervisor, most=0)
    assert await none.take(shape(SMALL), SMALL) is None
    await pool.take(shape(SMALL), SMALL)
    assert await soon(lambda: len(maker.made) == 1)
    await pool.aclose()
    assert maker.ended == maker.made
    assert await pool.take(shape(SMALL), SMALL) is None


async def test_a_fixed_number_is_kept_whatever_was_missed(
    maker: _Maker, supervisor: Supervisor
) -> None:
    fixed = maker.pool(supervisor, most=3, scaled=False)
    await fixed.take(shape(SMALL), SMALL)
    assert await soon(lambda: len(maker.made) == 3)
    (view,) = fixed.shelves
    assert (view.target, view.ready, view.misses) == (3, 3, 1)


async def test_failing_starts_are_tried_ever_more_rarely(
    maker: _Maker, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scaling, "LONGEST_BACK_OFF_SECONDS", 3600.0)
    monkeypatch.setattr(scaling, "FIRST_BACK_OFF_SECONDS", 1800.0)
    maker.failing = True
    pool = maker.pool(supervisor, most=3)
    await pool.take(shape(SMALL), SMALL)
    assert await soon(lambda: maker.tried == 1)
    for _ in range(5):
        await pool.take(shape(SMALL), SMALL)
    assert await soon(lambda: len(maker.scale_log.latest) == 2)
    await anyio.wait_all_tasks_blocked()
    assert maker.tried == 1
    reasons = [scaled.change.reason for scaled in maker.scale_log.latest]
    assert reasons[0] == "1 request found none ready"
    assert "1 starts in a row failed" in reasons[1]
