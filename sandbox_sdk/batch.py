"""A batch of trials while it runs, as its user holds it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import anyio

from sandbox_sdk.errors import SandboxError

if TYPE_CHECKING:
    from sandbox_sdk.experiments.batches.batch_run import BatchRun
    from sandbox_sdk.experiments.batches.progress import Progress
    from sandbox_sdk.experiments.results.run_result import RunResult, Trial


class AsyncBatch:
    """A batch that runs while its ``async with`` lasts, made by ``client.start_batch()``.

    Iterate over it for its trials, as they come to their last state.
    """

    def __init__(self, run: BatchRun | None, given: RunResult | None) -> None:
        self._run = run
        self._given = given
        self._over = anyio.Event()
        self._error: SandboxError | None = None
        if run is None:
            self._over.set()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}>"

    @property
    def id(self) -> str:
        """The run's id."""
        return self._run.run.id if self._run else self._given.id if self._given else ""

    @property
    def progress(self) -> Progress | None:
        """How far it has come; ``None`` for a run that was finished before."""
        return self._run.progress() if self._run else None

    async def __aiter__(self) -> AsyncIterator[Trial]:
        """Yield the trials as they come to their last state, without those done before."""
        if self._run is not None:
            async for trial in self._run.endings():
                yield trial

    async def pause(self) -> None:
        """Start no trial until ``resume()``; those under way go on."""
        if self._run is not None:
            self._run.pause()

    async def resume(self) -> None:
        """Start trials again."""
        if self._run is not None:
            self._run.resume()

    async def cancel(self) -> None:
        """End the trials under way as cancelled, and start none; calling again takes them up."""
        if self._run is not None:
            self._run.cancel()

    async def cancel_rest(self) -> None:
        """Start no more trials; those under way come to their end."""
        if self._run is not None:
            self._run.cancel_rest()

    async def wait(self) -> None:
        """Wait for the end, however it is."""
        await self._over.wait()

    async def result(self) -> RunResult:
        """Wait for the end and return what the batch gave.

        Raises:
            AdmissionTimeout: Others held all places for sandboxes for too long.
        """
        await self.wait()
        if self._error is not None:
            raise self._error
        if self._run is not None:
            return self._run.result()
        if self._given is None:
            raise AssertionError("unreachable: a batch runs, or was finished")
        return self._given

    async def _drive(self) -> None:
        """Run it to its end; what goes wrong is raised by ``result()``."""
        try:
            if self._run is not None:
                await self._run.drive()
        except SandboxError as error:
            self._error = error
        finally:
            self._over.set()
