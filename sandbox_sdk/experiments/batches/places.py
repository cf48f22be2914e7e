"""Where the trials of a batch run: each attempt in a sandbox of its own, when there is room."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext

from sandbox_sdk.experiments.batches.concurrency import Concurrency, Ticket
from sandbox_sdk.experiments.batches.plan import PlannedTrial
from sandbox_sdk.experiments.models.registry import ModelRegistry
from sandbox_sdk.policies import Admission, SlotRequest, template_of
from sandbox_sdk.values import Resources, Sandboxes, Workplace


class FreshPlaces:
    """A fresh sandbox for each attempt that needs one, within the admission's places.

    The place for a sandbox is waited for first and the one among the model's callers second, so a
    trial never holds what another needs to end; the sandbox starts when both are there.

    Args:
        run: The run's id.
        models: The client's models.
        sandboxes: Makes the sandboxes.
        admission: Says when one may start.
        concurrency: The places among the models' callers.
        admission_timeout: Seconds to wait while other runs hold all places.
        scored_inside: Whether a scorer runs something in a sandbox, in the trial's place.
    """

    def __init__(
        self,
        run: str,
        *,
        models: ModelRegistry,
        sandboxes: Sandboxes,
        admission: Admission,
        concurrency: Concurrency,
        admission_timeout: float,
        scored_inside: bool = False,
    ) -> None:
        self._run = run
        self._models = models
        self._sandboxes = sandboxes
        self._admission = admission
        self._concurrency = concurrency
        self._timeout = admission_timeout
        self._scored_inside = scored_inside

    @asynccontextmanager
    async def place(self, trial: PlannedTrial) -> AsyncGenerator[Ticket | None, None]:
        """Wait until the trial may start, and hold its place while the context lasts.

        Yields:
            Its place among its model's callers, if they are bounded.

        Raises:
            AdmissionTimeout: Other runs held all places for sandboxes for too long.
        """
        async with AsyncExitStack() as stack:
            if trial.spec is not None or self._scored_inside:
                await stack.enter_async_context(self._admission.slot(self._request(trial)))
            if trial.config.model is None:
                yield None
                return
            slots = self._concurrency.slots(trial.config, self._models)
            if slots is None:
                yield None
                return
            ticket = Ticket(slots)
            await ticket.take()
            stack.callback(ticket.give)
            yield ticket

    def workplace(self, trial: PlannedTrial) -> AbstractAsyncContextManager[Workplace | None]:
        """Make the sandbox of one attempt, not set up yet; ``None`` where none is needed."""
        return nullcontext() if trial.spec is None else self._sandboxes.start(trial.spec)

    def _request(self, trial: PlannedTrial) -> SlotRequest:
        return SlotRequest(
            owner=self._run,
            holder=f"trial {trial.key[:8]} of {self._run}",
            resources=trial.spec.resources if trial.spec else Resources(),
            template=template_of(trial.spec) if trial.spec else "",
            timeout=self._timeout,
        )
