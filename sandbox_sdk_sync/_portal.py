"""The bridge from blocking calls to the async core: calls, iterations and contexts."""

from __future__ import annotations

import asyncio
import sys
import warnings
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from types import TracebackType
from typing import ParamSpec, TypeVar

import anyio

from sandbox_sdk_sync._loop import CLEANUP_SECONDS, Loop, Task

P = ParamSpec("P")
T = TypeVar("T")
X = TypeVar("X")

BATCH = 32
"""Most items of an async iterator made ahead, and fetched in one crossing between the threads."""


class Portal:
    """Runs coroutine functions on an event loop of its own and waits for their results.

    Thread-safe. It belongs to the process that made it: in a forked child every call raises.
    """

    def __init__(self) -> None:
        _warn_in_running_loop()
        self._loop = Loop()
        # The thread keeps the loop alive, but nothing keeps the portal: once it is forgotten the
        # loop ends. Nobody waits for that: collection may happen on any thread, at any line.
        self._forgotten = weakref.finalize(self, self._loop.stop)

    def call(self, func: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``await func(*args, **kwargs)`` on the loop and return its result.

        Ctrl-C cancels it and waits for its cleanup; a second Ctrl-C leaves at once.

        Raises:
            SandboxClosed: The portal was closed, or belongs to another process.
        """
        task = Task(lambda: func(*args, **kwargs))
        try:
            self._loop.begin(task)
            return task.future.result()
        except BaseException as exc:
            self._loop.abandon(task)
            exc.__traceback__ = _without_bridge(exc.__traceback__)
            raise
        finally:
            del task  # or the error's traceback would hold this frame, and the frame the error

    def iterate(
        self, func: Callable[P, AsyncIterator[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Iterator[T]:
        """Iterate ``func(*args, **kwargs)``, many items per crossing.

        However the iteration ends, the async iterator is closed before control returns.
        """
        send, receive = anyio.create_memory_object_stream[T](BATCH)

        async def produce() -> None:
            items = func(*args, **kwargs)
            try:
                async with send:
                    async for item in items:
                        await send.send(item)
            finally:
                if aclose := getattr(items, "aclose", None):  # generators have one
                    with anyio.move_on_after(CLEANUP_SECONDS, shield=True):
                        await aclose()

        async def take() -> list[T]:
            batch: list[T] = []
            with suppress(anyio.EndOfStream, anyio.WouldBlock):
                batch.append(await receive.receive())
                while len(batch) < BATCH:
                    batch.append(receive.receive_nowait())
            return batch

        producer = Task(produce)
        try:
            self._loop.begin(producer)
            while batch := self.call(take):
                yield from batch
            producer.future.result()  # raises what ended the iterator early, if anything did
        finally:
            self._loop.abandon(producer)
            send.close()
            receive.close()

    def iterate_as(
        self,
        twin: Callable[[T, Portal], X],
        func: Callable[P, AsyncIterator[T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Iterator[X]:
        """Iterate as `iterate` does, each item as its ``twin``."""
        return (twin(core, self) for core in self.iterate(func, *args, **kwargs))

    def follow(self, get: Callable[[], AsyncIterator[T]]) -> Iterator[T]:
        """Iterate a stream that outlives the iteration, such as a process's output.

        Nothing is fetched ahead, and leaving does not close it: who comes back reads on.
        """

        async def begin() -> AsyncIterator[T]:
            return aiter(get())

        async def take() -> list[T]:
            try:
                return [await anext(items)]
            except StopAsyncIteration:
                return []

        items = self.call(begin)
        while batch := self.call(take):
            yield from batch

    @contextmanager
    def enter(
        self,
        func: Callable[P, AbstractAsyncContextManager[T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Generator[T, None, None]:
        """Enter and leave ``func(*args, **kwargs)`` in one task, as cancel scopes require."""
        entered: Future[tuple[T, anyio.Event]] = Future()
        failure: list[Exception] = []

        async def hold() -> None:
            async with func(*args, **kwargs) as value:
                leave = anyio.Event()
                entered.set_result((value, leave))
                await leave.wait()
                if failure:
                    raise failure[0]

        def not_entered(ended: Future[None]) -> None:
            if not entered.done():
                entered.set_exception(ended.exception())

        holder = Task(hold)
        holder.future.add_done_callback(not_entered)
        try:
            self._loop.begin(holder)
            value, leave = entered.result()
            try:
                yield value
            except Exception as exc:  # noqa: BLE001 - the manager sees it, and may swallow it
                failure.append(exc)
            self._loop.hand_over(leave.set)
            holder.future.result()
        except BaseException as exc:
            # An interrupt is not raised in the task, where it would end the loop: it cancels it.
            self._loop.abandon(holder)
            exc.__traceback__ = _without_bridge(exc.__traceback__)
            raise
        finally:
            failure.clear()
            del holder

    @contextmanager
    def enter_as(
        self,
        twin: Callable[[T, Portal], X],
        func: Callable[P, AbstractAsyncContextManager[T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Generator[X, None, None]:
        """Enter as `enter` does, yielding the ``twin`` of what was entered."""
        with self.enter(func, *args, **kwargs) as core:
            yield twin(core, self)

    @property
    def closed(self) -> bool:
        """Whether calls only raise, in this process."""
        return self._loop.stopped

    def at_end(self, farewell: Callable[[], Awaitable[object]] | None) -> None:
        """Run ``farewell`` on the loop when the portal ends: closed, forgotten, or at exit."""
        self._loop.at_end(farewell)

    def close(self) -> None:
        """Cancel what still runs and end the loop thread. Idempotent."""
        self._forgotten.detach()
        self._loop.stop()
        self._loop.join()


def _warn_in_running_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    if "ipykernel" in sys.modules:
        return  # a notebook runs a loop that its cells are meant to block
    warnings.warn(
        "a blocking client inside a running event loop blocks every other task of it: "
        "use AsyncSandboxClient",
        RuntimeWarning,
        stacklevel=5,
    )


def _without_bridge(trace: TracebackType | None) -> TracebackType | None:
    """The traceback from the core's own frames on; the whole of it if there are none."""
    inner = trace
    while inner is not None and inner.tb_frame.f_code.co_filename in _BRIDGE:
        inner = inner.tb_next
    return inner or trace


_BRIDGE = {
    __file__,
    sys.modules[Loop.__module__].__file__,
    sys.modules[Future.__module__].__file__,
}
"""Files whose frames say nothing to a reader of a traceback."""
