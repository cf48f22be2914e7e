"""An event loop on a thread of its own, and the tasks that other threads run on it."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, wait
from typing import Any, Generic, TypeVar

import anyio

from sandbox_sdk.errors import SandboxClosed, SandboxError

T = TypeVar("T")

CLEANUP_SECONDS = 10.0
"""Longest wait for the core to clean up after an interrupted call, or at the end."""

log = logging.getLogger("sandbox_sdk.blocking")


class Task(Generic[T]):
    """One coroutine on the loop; all but ``future`` is touched on the loop thread only.

    Attributes:
        future: Its outcome, there once the coroutine's own cleanup has ended.
    """

    def __init__(self, func: Callable[[], Awaitable[T]]) -> None:
        self.future: Future[T] = Future()
        self._func = func
        self._begun = self._cancelled = False
        self._scope: anyio.CancelScope | None = None

    def begin(self, loop: Loop) -> None:
        """Start the coroutine, in a copy of the current context."""
        self._begun = True
        # Not a task group, which cannot be used outside of a task; the loop waits for all of them.
        running = asyncio.get_running_loop().create_task(self._run())
        loop.tasks[running] = self
        running.add_done_callback(loop.tasks.pop)

    def cancel(self) -> None:
        """Cancel the coroutine; one that never began ends here."""
        self._cancelled = True
        if self._scope is not None:
            self._scope.cancel()
        elif not self._begun:
            self.future.set_exception(_closed_during_call())

    async def _run(self) -> None:
        try:
            with anyio.CancelScope() as self._scope:
                if self._cancelled:
                    self._scope.cancel()
                self.future.set_result(await self._func())
        except asyncio.CancelledError:
            raise  # the loop is closing
        except BaseException as exc:  # noqa: BLE001 - raised again in the thread that waits
            self.future.set_exception(exc)
        finally:
            if not self.future.done():
                self.future.set_exception(_closed_during_call())
            # On Python 3.13 an error's frames keep this one alive, and its names the call.
            del self


class Loop:
    """Starts an event loop on a thread, hands tasks over to it, and stops it.

    Thread-safe. It belongs to the process that made it.
    """

    # Not anyio's start_blocking_portal(): collecting its context manager waits for the loop
    # thread, which hangs at interpreter exit and in forked children. And not its
    # BlockingPortal: a Ctrl-C while it starts a task leaves that task running for good.

    def __init__(self) -> None:
        self.tasks: dict[asyncio.Task[None], Task[Any]] = {}
        self._pid = os.getpid()
        # Guards _stopped together with what is handed to the loop: after the stop nothing may be
        # handed over, since it would never run. Re-entrant, because the garbage collector may end
        # an iteration, and so cancel a task, at any line.
        self._lock = threading.RLock()
        self._stopped = False
        self._farewell: Callable[[], Awaitable[object]] | None = None
        started: Future[tuple[asyncio.AbstractEventLoop, anyio.Event]] = Future()
        # A daemon, as are the worker threads that it starts: exit waits in _stop_all(), bounded.
        self._thread = threading.Thread(
            target=self._run, args=(started,), name="sandbox-sdk", daemon=True
        )
        self._thread.start()
        self._asyncio_loop, self._stop = started.result()
        _running.add(self)

    @property
    def stopped(self) -> bool:
        """Whether nothing can be run any more, in this process."""
        return self._stopped or self._pid != os.getpid()

    def begin(self, task: Task[Any]) -> None:
        """Start a task; one that cannot run ends with the reason."""
        if self._pid != os.getpid():
            task.future.set_exception(
                SandboxClosed(
                    f"this client belongs to process {self._pid} and cannot be used in its forked "
                    f"child {os.getpid()}: create a client in the child"
                )
            )
        elif self._is_here():
            task.future.set_exception(
                SandboxError(
                    "a blocking call on the SDK's own loop thread would wait for itself: "
                    "use the Async classes there"
                )
            )
        elif not self.hand_over(task.begin, self):
            task.future.set_exception(
                SandboxClosed("this client was closed: create a new one for further calls")
            )

    def hand_over(self, callback: Callable[..., object], *args: object) -> bool:
        """Have the loop call ``callback(*args)``; return False if it was stopped before."""
        with self._lock:
            if self.stopped:
                return False
            self._asyncio_loop.call_soon_threadsafe(callback, *args)
            return True

    def abandon(self, task: Task[Any]) -> None:
        """Cancel a task that has not ended, and wait for its cleanup."""
        if task.future.done() or self._pid != os.getpid():
            return
        self.hand_over(task.cancel)
        if not self._is_here():  # where the garbage collector may end an iteration
            wait([task.future], CLEANUP_SECONDS)

    def at_end(self, farewell: Callable[[], Awaitable[object]] | None) -> None:
        """Run ``farewell`` on the loop when it is stopped."""
        self._farewell = farewell

    def stop(self) -> None:
        """Say farewell, cancel what still runs, and end the thread. Idempotent; does not wait."""
        with self._lock:
            if self.hand_over(self._stop.set):
                self._stopped = True

    def join(self) -> None:
        """Wait for the end of the thread."""
        if self._pid == os.getpid() and not self._is_here():
            # Twice: the farewell and then the cancelled tasks may each take their time.
            self._thread.join(2 * CLEANUP_SECONDS)

    def _is_here(self) -> bool:
        return threading.get_ident() == self._thread.ident

    def _run(self, started: Future[tuple[asyncio.AbstractEventLoop, anyio.Event]]) -> None:
        # Never uvloop, whatever the user's policy: it forks where the standard loop vforks.
        options = {"loop_factory": asyncio.SelectorEventLoop}
        try:
            anyio.run(self._serve, started, backend="asyncio", backend_options=options)
        finally:
            _running.discard(self)

    async def _serve(self, started: Future[tuple[asyncio.AbstractEventLoop, anyio.Event]]) -> None:
        stop = anyio.Event()
        started.set_result((asyncio.get_running_loop(), stop))
        await stop.wait()
        if self._farewell is not None:
            try:
                with anyio.move_on_after(CLEANUP_SECONDS):
                    await self._farewell()
            except Exception:
                # Nobody is left to raise to; the next start reaps what stayed.
                log.warning("client.close_failed", exc_info=True)
        for task in tuple(self.tasks.values()):
            task.cancel()
        if self.tasks:
            await asyncio.wait(tuple(self.tasks), timeout=CLEANUP_SECONDS)


def _closed_during_call() -> SandboxClosed:
    return SandboxClosed("the client was closed during this call: close it when all calls ended")


_running: set[Loop] = set()


@atexit.register
def _stop_all() -> None:
    loops = tuple(_running)
    for loop in loops:
        loop.stop()
    for loop in loops:
        loop.join()
