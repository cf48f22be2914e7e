"""The bridge under the blocking classes keeps its promises on Ctrl-C, fork, exit and threads."""

from __future__ import annotations

import contextvars
import gc
import os
import pickle
import signal
import sys
import threading
import traceback
import weakref
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from types import ModuleType

import anyio
import anyio.lowlevel
import pytest

from sandbox_sdk.errors import SandboxClosed, SandboxError
from sandbox_sdk_sync._loop import Loop, Task
from sandbox_sdk_sync._portal import BATCH, Portal
from sandbox_sdk_sync._twin import Root, Twin, core_of, feed


@pytest.fixture
def portal() -> Iterator[Portal]:
    portal = Portal()
    yield portal
    portal.close()


class Watched:
    """Async work that tells other threads how far it is."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.cleaning = threading.Event()
        self.cleaned = threading.Event()

    async def forever(self) -> None:
        try:
            self.started.set()
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()
                self.cleaned.set()


def interrupt_when(*events: threading.Event) -> threading.Thread:
    """Press Ctrl-C once for each event, when it is set."""

    def press() -> None:
        for event in events:
            assert event.wait(10)
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    return thread


async def double(number: int) -> int:
    return 2 * number


async def fail(message: str) -> None:
    raise ValueError(message)


# calls


def test_a_call_returns_the_result(portal: Portal) -> None:
    assert portal.call(double, 21) == 42


def test_a_call_raises_the_error_and_shows_no_frame_of_the_bridge(portal: Portal) -> None:
    with pytest.raises(ValueError, match="no such thing") as caught:
        portal.call(fail, "no such thing")
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert names == [sys._getframe().f_code.co_name, "fail"]


def test_a_kept_error_keeps_nothing_of_the_call_alive(portal: Portal) -> None:
    class Big:
        pass

    async def fail_with(_: Big) -> None:
        raise ValueError("small")

    def call() -> weakref.ref[Big]:
        big = Big()
        with pytest.raises(ValueError, match="small"):
            portal.call(fail_with, big)
        return weakref.ref(big)

    gc.disable()
    try:
        big = call()
        portal.call(double, 1)  # the loop has let go of the task by now
        assert big() is None
    finally:
        gc.enable()


def test_system_exit_in_the_core_reaches_the_caller_and_not_the_loop(portal: Portal) -> None:
    async def leave() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        portal.call(leave)
    assert portal.call(double, 1) == 2


def test_eight_threads_share_one_portal(portal: Portal) -> None:
    def work(start: int) -> list[int]:
        return [portal.call(double, number) for number in range(start, start + 50)]

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(work, range(8)))
    assert results == [[2 * n for n in range(start, start + 50)] for start in range(8)]


def test_context_variables_of_the_caller_are_seen(portal: Portal) -> None:
    trace_id = contextvars.ContextVar("trace_id", default="none")

    async def read() -> str:
        await anyio.lowlevel.checkpoint()
        return trace_id.get()

    token = trace_id.set("t-1")
    try:
        assert portal.call(read) == "t-1"
    finally:
        trace_id.reset(token)


def test_a_blocking_call_on_the_loop_thread_is_refused(portal: Portal) -> None:
    async def call_back() -> None:
        portal.call(double, 1)

    with pytest.raises(SandboxError, match="would wait for itself"):
        portal.call(call_back)


# Ctrl-C


def test_ctrl_c_cancels_a_call_and_waits_for_its_cleanup(portal: Portal) -> None:
    work = Watched()
    thread = interrupt_when(work.started)
    with pytest.raises(KeyboardInterrupt):
        portal.call(work.forever)
    assert work.cleaned.is_set()
    thread.join()
    assert portal.call(double, 1) == 2


def test_a_second_ctrl_c_leaves_at_once(portal: Portal) -> None:
    started, cleaning = threading.Event(), threading.Event()
    release = portal.call(_new_event)
    cleaned: list[bool] = []

    async def stubborn() -> None:
        try:
            started.set()
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                cleaning.set()
                await release.wait()
                cleaned.append(True)

    thread = interrupt_when(started, cleaning)
    with pytest.raises(KeyboardInterrupt):
        portal.call(stubborn)
    assert not cleaned
    thread.join()
    portal.call(_set, release)


def test_a_task_interrupted_before_it_began_is_not_waited_for() -> None:
    loop = Loop()
    task = Task(_new_event)
    loop.abandon(task)
    with pytest.raises(SandboxClosed):
        task.future.result(timeout=0)
    loop.stop()
    loop.join()


def test_a_task_cancelled_before_its_first_step_runs_no_further_than_its_first_wait() -> None:
    loop = Loop()
    ready, go = threading.Event(), threading.Event()
    steps: list[str] = []

    async def work() -> None:
        steps.append("first")
        await anyio.lowlevel.checkpoint()
        steps.append("second")

    def block() -> None:
        ready.set()
        assert go.wait(10)

    loop.hand_over(block)  # so that begin and cancel reach the loop together
    assert ready.wait(10)
    task = Task(work)
    loop.begin(task)
    loop.hand_over(task.cancel)
    go.set()
    with pytest.raises(SandboxClosed):
        task.future.result(timeout=10)
    assert steps == ["first"]
    loop.stop()
    loop.join()


def test_ctrl_c_while_entering_leaves_nothing_entered(portal: Portal) -> None:
    work = Watched()
    steps: list[str] = []

    @asynccontextmanager
    async def slow() -> AsyncIterator[None]:
        await work.forever()
        steps.append("entered")
        yield

    thread = interrupt_when(work.started)
    with pytest.raises(KeyboardInterrupt), portal.enter(slow):
        steps.append("ran")
    assert work.cleaned.is_set()
    assert steps == []
    thread.join()


def test_a_manager_that_enters_in_spite_of_ctrl_c_is_left_again(portal: Portal) -> None:
    started = threading.Event()
    steps: list[str] = []

    @asynccontextmanager
    async def stubborn() -> AsyncIterator[None]:
        try:
            started.set()
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            steps.append("entered")
        try:
            yield
        finally:
            steps.append("left")

    thread = interrupt_when(started)
    with pytest.raises(KeyboardInterrupt), portal.enter(stubborn):
        steps.append("ran")
    assert steps == ["entered", "left"]
    thread.join()


def test_ctrl_c_in_a_block_leaves_the_manager(portal: Portal) -> None:
    steps: list[str] = []

    @asynccontextmanager
    async def plain() -> AsyncIterator[None]:
        try:
            yield
        finally:
            steps.append("left")

    with pytest.raises(KeyboardInterrupt), portal.enter(plain):
        signal.raise_signal(signal.SIGINT)
    assert steps == ["left"]


def test_ctrl_c_in_an_iteration_closes_the_async_iterator(portal: Portal) -> None:
    work = Watched()

    async def count() -> AsyncIterator[int]:
        yield 1
        await work.forever()

    seen: list[int] = []
    thread = interrupt_when(work.started)
    with pytest.raises(KeyboardInterrupt):
        seen.extend(portal.iterate(count))
    assert work.cleaned.is_set()
    thread.join()


class Enterable:
    """An async object with two calls around a block, as the core's sandboxes have."""

    def __init__(self) -> None:
        self.entering = Watched()
        self.exits = 0

    async def __aenter__(self) -> None:
        await self.entering.forever()

    async def __aexit__(self, *_: object) -> None:
        self.exits += 1


class EnterableTwin(Twin[Enterable]):
    def __enter__(self) -> None:
        self._enter(self._core)

    def __exit__(self, *_: object) -> None:
        pass


def test_ctrl_c_while_a_twin_is_entered_leaves_it_too(portal: Portal) -> None:
    core = Enterable()
    thread = interrupt_when(core.entering.started)
    with pytest.raises(KeyboardInterrupt), EnterableTwin(core, portal):
        pass
    assert core.entering.cleaned.is_set()
    assert core.exits == 1
    thread.join()


# iterations


async def count_to(last: int) -> AsyncIterator[int]:
    for number in range(last):
        yield number


def test_iterate_yields_every_item_in_order(portal: Portal) -> None:
    count = 5 * BATCH + 3
    assert list(portal.iterate(count_to, count)) == list(range(count))


def test_iterate_of_nothing_ends(portal: Portal) -> None:
    assert list(portal.iterate(count_to, 0)) == []


def test_break_closes_the_async_generator_before_control_returns(portal: Portal) -> None:
    steps: list[str] = []

    async def endless() -> AsyncIterator[int]:
        try:
            while True:
                yield len(steps)
        finally:
            await anyio.lowlevel.checkpoint()
            steps.append("closed")

    for _ in portal.iterate(endless):
        break
    assert steps == ["closed"]


def test_an_error_comes_after_the_items_before_it(portal: Portal) -> None:
    async def broken() -> AsyncIterator[int]:
        yield 1
        yield 2
        raise ValueError("the third is missing")

    seen: list[int] = []
    with pytest.raises(ValueError, match="the third is missing"):
        seen.extend(portal.iterate(broken))
    seen = []
    numbers = portal.iterate(broken)
    seen += [next(numbers), next(numbers)]
    with pytest.raises(ValueError, match="the third is missing"):
        next(numbers)
    assert seen == [1, 2]


def test_a_slow_reader_holds_the_producer_back(portal: Portal) -> None:
    made: list[int] = []

    async def eager() -> AsyncIterator[int]:
        for number in range(100 * BATCH):
            made.append(number)
            yield number

    numbers = portal.iterate(eager)
    next(numbers)
    portal.call(anyio.lowlevel.checkpoint)
    assert len(made) <= 2 * BATCH + 2
    assert list(numbers) == list(range(1, 100 * BATCH))


def test_an_iteration_collected_on_the_loop_thread_does_not_wait_for_itself(
    portal: Portal,
) -> None:
    work = Watched()

    async def count() -> AsyncIterator[int]:
        yield 1
        await work.forever()

    held = [portal.iterate(count)]
    assert next(held[0]) == 1

    async def drop() -> None:
        held.clear()

    portal.call(drop)
    assert work.cleaned.wait(10)


def test_leaving_a_stream_and_coming_back_loses_nothing(portal: Portal) -> None:
    output = count_to(4)
    seen: list[int] = []
    for number in portal.follow(lambda: output):
        seen.append(number)
        if number == 1:
            break
    seen += portal.follow(lambda: output)
    assert seen == [0, 1, 2, 3]


# contexts


def test_entering_and_leaving_happen_in_one_task(portal: Portal) -> None:
    @asynccontextmanager
    async def group() -> AsyncIterator[int]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep_forever)
            yield 5
            tasks.cancel_scope.cancel()

    with portal.enter(group) as value:
        assert value == 5


def test_a_manager_sees_the_error_of_the_block_and_may_swallow_it(portal: Portal) -> None:
    seen: list[Exception] = []

    @asynccontextmanager
    async def guard(*, swallow: bool) -> AsyncIterator[None]:
        try:
            yield
        except ValueError as exc:
            seen.append(exc)
            if not swallow:
                raise

    problem = ValueError("mine")

    def run(*, swallow: bool) -> None:
        with portal.enter(guard, swallow=swallow):
            raise problem

    run(swallow=True)
    with pytest.raises(ValueError, match="mine") as caught:
        run(swallow=False)
    assert caught.value is problem
    assert seen == [problem, problem]


def test_an_error_while_entering_is_raised(portal: Portal) -> None:
    @asynccontextmanager
    async def broken() -> AsyncIterator[None]:
        await fail("cannot enter")
        yield

    with pytest.raises(ValueError, match="cannot enter"), portal.enter(broken):
        pytest.fail("the block ran")


def test_what_is_entered_or_iterated_can_be_a_twin(portal: Portal) -> None:
    core = Enterable()

    @asynccontextmanager
    async def hold() -> AsyncIterator[Enterable]:
        yield core

    async def one() -> AsyncIterator[Enterable]:
        yield core

    twin = EnterableTwin(core, portal)
    with portal.enter_as(EnterableTwin, hold) as entered:
        assert entered == twin
    assert list(portal.iterate_as(EnterableTwin, one)) == [twin]
    assert core_of(twin) is core
    assert core_of(core) is core


# arguments


def test_a_fed_iterable_does_not_block_the_loop(portal: Portal) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"a"
        yield str(portal.call(double, 4)).encode()  # works only while the loop is free

    async def gather(data: AsyncIterator[bytes]) -> bytes:
        return b"".join([chunk async for chunk in data])

    assert portal.call(gather, feed(chunks())) == b"a8"


def test_text_bytes_async_iterables_and_none_are_passed_on_as_they_are() -> None:
    numbers = count_to(1)
    for value in (b"bytes", "text", numbers, None):
        assert feed(value) is value


# the end


class Toy:
    """The smallest core of a root."""

    def __init__(self, *, fail: bool = False) -> None:
        if fail:
            raise ValueError("cannot be made")
        self.closed = 0

    async def double(self, number: int) -> int:
        return 2 * number

    async def aclose(self) -> None:
        self.closed += 1


class BlockingToy(Root[Toy]):
    def __init__(self, *, fail: bool = False) -> None:
        super().__init__(Toy, fail=fail)

    def double(self, number: int) -> int:
        return self._call(self._core.double, number)

    def close(self) -> None:
        self._end(self._core.aclose)

    def thread(self) -> threading.Thread:
        return self._portal._loop._thread

    @property
    def core(self) -> Toy:
        return self._core


def test_close_closes_the_core_once_and_ends_the_thread() -> None:
    toy = BlockingToy()
    assert toy.double(2) == 4
    toy.close()
    toy.close()
    assert toy.core.closed == 1
    assert not toy.thread().is_alive()
    with pytest.raises(SandboxClosed, match="create a new one"):
        toy.double(2)


def test_a_core_that_cannot_be_made_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    with pytest.raises(ValueError, match="cannot be made"):
        BlockingToy(fail=True)
    assert set(threading.enumerate()) <= before


def test_closing_from_another_thread_ends_a_call_with_an_error() -> None:
    portal = Portal()
    work = Watched()

    def close() -> None:
        assert work.started.wait(10)
        portal.close()

    closer = threading.Thread(target=close)
    closer.start()
    with pytest.raises(SandboxClosed, match="during this call"):
        portal.call(work.forever)
    assert work.cleaned.is_set()
    closer.join()


def test_a_forgotten_root_closes_its_core_and_ends_its_thread() -> None:
    toy = BlockingToy()
    core, thread = toy.core, toy.thread()
    del toy
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()
    assert core.closed == 1


def test_an_error_of_the_farewell_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    loop = Loop()
    loop.at_end(lambda: fail("cannot close"))
    loop.stop()
    loop.join()
    assert [record.getMessage() for record in caplog.records] == ["client.close_failed"]
    assert "cannot close" in caplog.text


def test_twins_and_roots_cannot_be_pickled() -> None:
    toy = BlockingToy()
    with pytest.raises(TypeError, match="pass ids and settings"):
        pickle.dumps(toy)
    toy.close()


@pytest.mark.anyio
async def test_inside_a_running_loop_it_works_and_warns() -> None:
    with pytest.warns(RuntimeWarning, match="use AsyncSandboxClient") as caught:
        toy = BlockingToy()
    assert caught[0].filename == __file__
    assert toy.double(3) == 6
    toy.close()


@pytest.mark.anyio
async def test_in_a_notebook_it_works_and_does_not_warn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    toy = BlockingToy()
    assert toy.double(3) == 6
    toy.close()


async def _new_event() -> anyio.Event:
    return anyio.Event()


async def _set(event: anyio.Event) -> None:
    event.set()
