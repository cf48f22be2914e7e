# Generated from sandbox_sdk/batch.py. Edit that, then run: nox -s generate -- --write
"""A batch of trials while it runs, as its user holds it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sandbox_sdk.batch import AsyncBatch
from sandbox_sdk_sync._twin import Twin

if TYPE_CHECKING:
    from sandbox_sdk.experiments.batches.progress import Progress
    from sandbox_sdk.experiments.results.run_result import RunResult, Trial


class Batch(Twin[AsyncBatch]):
    """A batch that runs while its ``with`` lasts, made by ``client.start_batch()``.

    Iterate over it for its trials, as they come to their last state.
    """

    @property
    def id(self) -> str:
        """The run's id."""
        return self._core.id

    @property
    def progress(self) -> Progress | None:
        """How far it has come; ``None`` for a run that was finished before."""
        return self._core.progress

    def __iter__(self) -> Iterator[Trial]:
        """Yield the trials as they come to their last state, without those done before."""
        return self._portal.iterate(self._core.__aiter__)

    def pause(self) -> None:
        """Start no trial until ``resume()``; those under way go on."""
        self._call(self._core.pause)

    def resume(self) -> None:
        """Start trials again."""
        self._call(self._core.resume)

    def cancel(self) -> None:
        """End the trials under way as cancelled, and start none; calling again takes them up."""
        self._call(self._core.cancel)

    def cancel_rest(self) -> None:
        """Start no more trials; those under way come to their end."""
        self._call(self._core.cancel_rest)

    def wait(self) -> None:
        """Wait for the end, however it is."""
        self._call(self._core.wait)

    def result(self) -> RunResult:
        """Wait for the end and return what the batch gave.

        Raises:
            AdmissionTimeout: Others held all places for sandboxes for too long.
        """
        return self._call(self._core.result)
