"""One attempt: the sandbox made ready, the model or code run, what is left kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import anyio
import attrs

from sandbox_sdk.errors import SandboxError, StateError
from sandbox_sdk.experiments.allowance import Allowance
from sandbox_sdk.experiments.batches.paid import PaidAnswers
from sandbox_sdk.experiments.budgets.prices import Prices
from sandbox_sdk.experiments.budgets.spending import BudgetGate, Spending
from sandbox_sdk.experiments.config import ExperimentConfig
from sandbox_sdk.experiments.model_call import ModelCaller
from sandbox_sdk.experiments.model_loop import ModelLoop
from sandbox_sdk.experiments.models.base import ModelProvider
from sandbox_sdk.experiments.models.registry import ModelRegistry
from sandbox_sdk.experiments.records.artifacts import ARTIFACTS, SealedShelf
from sandbox_sdk.experiments.records.lock import Lock
from sandbox_sdk.experiments.records.payloads import PLAIN, Payloads
from sandbox_sdk.experiments.records.recorder import Recorder
from sandbox_sdk.experiments.results.outcome import Outcome, decided_by, failed
from sandbox_sdk.experiments.results.result import ResourceUse
from sandbox_sdk.experiments.tools.tools import Tools
from sandbox_sdk.values import AttemptState, EndKind, Usage, Workplace

_GRACE_SECONDS = 5.0  # beyond limits.time, for what bounds itself by it to say so
_KEEP_SECONDS = 120.0
_USAGE_SECONDS = 2.0


Wrap = Callable[[ModelProvider], ModelProvider]
"""Puts something between an attempt and its model, such as a place among its callers."""


@attrs.frozen(kw_only=True, eq=False)
class Surroundings:
    """What an attempt needs besides its experiment and sandbox.

    Attributes:
        folder: The run's folder.
        models: The client's models.
        lock: Keeps what the run is done with.
        condition: The label of its condition.
        wrap: Puts something before its model.
        past: The answers that were bought for its trial before.
        gate: The budget it spends of; by default one without bounds.
        payloads: Keeps what the run holds.
    """

    folder: Path
    models: ModelRegistry
    lock: Lock
    condition: str = ""
    wrap: Wrap | None = None
    past: PaidAnswers | None = None
    gate: BudgetGate | None = None
    payloads: Payloads = PLAIN


class Attempt:
    """Runs one attempt, in a sandbox if it needs one, and notes what happens.

    Args:
        config: The experiment.
        workplace: The sandbox; ``None`` for one that only asks a model.
        recorder: Notes what happens.
        around: What else it needs.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        workplace: Workplace | None,
        recorder: Recorder,
        around: Surroundings,
    ) -> None:
        self._config = config
        self._workplace = workplace
        self._recorder = recorder
        self._around = around
        self._before: Usage | None = None
        self._tools: Tools | None = None
        if workplace is not None:
            self._tools = Tools(
                config.tools or ("python",),
                workplace,
                around.folder,
                config.limits.tool_output,
                recorder,
                around.models.redactor,
                around.payloads,
            )

    async def run(self) -> Outcome:
        """Run it to its end and return how it ended.

        Raises:
            SandboxError: The sandbox could not be set up.
            StateError: The journal cannot be written.
        """
        allowance = Allowance(self._config.limits)
        models, workplace = self._around.models, self._workplace
        await self._recorder.durable(
            "attempt.started",
            sandbox=workplace.id if workplace else None,
            provider=models.request(self._config)[0].name if self._config.model else None,
            seed=self._config.sampling_seed,
        )
        if workplace is not None:
            await workplace.setup()
            await self._note_sandbox(workplace)
        outcome = allowance.out_of_time()
        with anyio.move_on_after(allowance.time_left + _GRACE_SECONDS):
            outcome = await self._guarded(allowance)
        if self._config.artifacts and workplace is not None:
            await self._collect(workplace)
        return outcome

    async def usage(self) -> ResourceUse | None:
        """Return what the sandbox used since it stood ready, if it still lives."""
        after = None
        if self._before is None or self._workplace is None:
            return None
        with anyio.move_on_after(_USAGE_SECONDS):
            try:
                after = await self._workplace.usage()
            except SandboxError:
                return None  # it is gone, and its counters with it
        if after is None:
            return None
        spent = None
        if after.cpu_seconds is not None and self._before.cpu_seconds is not None:
            spent = max(0.0, after.cpu_seconds - self._before.cpu_seconds)
        return ResourceUse(
            cpu_seconds=spent, memory_peak_bytes=after.memory_peak_bytes, source=after.source
        )

    async def _guarded(self, allowance: Allowance) -> Outcome:
        """Run what the config says; what goes wrong in a sandbox is an outcome."""
        try:
            return await self._prepare(allowance) or await self._main(allowance)
        except StateError:
            raise
        except SandboxError as error:
            # A dead sandbox, or one that cannot do its work, is never the model's failure.
            return failed(AttemptState.INFRA_ERROR, error)

    async def _note_sandbox(self, workplace: Workplace) -> None:
        isolation = workplace.isolation
        told: Mapping[str, Any] | None = attrs.asdict(isolation) if isolation else None
        limits = [attrs.asdict(limit) for limit in workplace.limits]
        self._recorder.standing(told, limits)
        self._before = await workplace.usage()
        await self._around.lock.sandbox_ready(
            self._around.condition, sandbox_id=workplace.id, isolation=told, limits=limits
        )

    async def _prepare(self, allowance: Allowance) -> Outcome | None:
        if self._workplace is None or self._tools is None:
            return None
        for path, content in self._config.files.items():
            await self._workplace.files.write(path, content)
        if self._config.setup is None:
            return None
        result = await self._tools.run("bash", self._config.setup, _finite(allowance.seconds))
        self._recorder.note(
            "setup.finished", text=result.text, duration=result.duration, ok=result.error is None
        )
        if result.error is None:
            return None
        tail = result.text[-500:]
        return failed(
            AttemptState.INFRA_ERROR,
            SandboxError(f"the setup command failed, so nothing was run: {tail}"),
        )

    async def _main(self, allowance: Allowance) -> Outcome:
        if self._config.code is not None and self._tools is not None:
            return await self._code(self._config.code, self._tools, allowance)
        around = self._around
        provider, request = around.models.request(self._config)
        gate = around.gate or BudgetGate.unbounded(Prices(self._config.prices))
        spending = Spending(gate, around.models.priced(self._config), around.condition)
        caller = ModelCaller(
            around.wrap(provider) if around.wrap else provider,
            self._config.retries,
            self._recorder,
            allowance,
            spending,
            around.models.cassette(self._config),
            past=around.past,
        )
        loop = ModelLoop(
            self._config,
            caller,
            request,
            self._tools,
            self._recorder,
            allowance,
            supports_tools=provider.supports_tools,
        )
        return await loop.run()

    async def _code(self, code: str, tools: Tools, allowance: Allowance) -> Outcome:
        result = await tools.run("python", code, _finite(allowance.seconds))
        if result.ended is None:
            raise AssertionError("unreachable: the code was run")
        self._recorder.note(
            "code.finished",
            text=result.text,
            ended=attrs.asdict(result.ended),
            duration=result.duration,
            artifact=attrs.asdict(result.artifact) if result.artifact else None,
        )
        if result.ended.kind is EndKind.TIMEOUT and allowance.seconds <= 0:
            return allowance.out_of_time()
        return decided_by(result.ended, result.output)

    async def _collect(self, workplace: Workplace) -> None:
        """Copy what the config asks for, as far as the sandbox still gives it."""
        folder, payloads = self._around.folder, self._around.payloads
        sealed = None if payloads.key_id is None else SealedShelf(folder, payloads)
        collected = None
        reason = f"it took longer than {_KEEP_SECONDS:g} s"
        with anyio.move_on_after(_KEEP_SECONDS):
            try:
                collected = await workplace.collect(
                    self._config.artifacts, sealed or folder / ARTIFACTS
                )
            except StateError:
                raise
            except SandboxError as error:
                reason = error.message
        if collected is None:
            self._recorder.note("warning", text=f"artifacts were not collected: {reason}")
            return
        self._recorder.note(
            "artifacts.collected",
            artifacts=[attrs.asdict(artifact) for artifact in collected.artifacts],
            skipped=collected.skipped,
        )


def _finite(seconds: float) -> float | None:
    """Return a timeout for a call: none where there is no bound, and never 0."""
    return None if seconds == float("inf") else max(0.001, seconds)
