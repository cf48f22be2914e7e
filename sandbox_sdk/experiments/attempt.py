"""One attempt: the sandbox made ready, the model or code run, what is left kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import attrs

from sandbox_sdk.errors import SandboxError, StateError
from sandbox_sdk.experiments.allowance import Allowance
from sandbox_sdk.experiments.artifacts import ARTIFACTS
from sandbox_sdk.experiments.config import ExperimentConfig
from sandbox_sdk.experiments.model_call import ModelCaller
from sandbox_sdk.experiments.model_loop import ModelLoop
from sandbox_sdk.experiments.models.registry import ModelRegistry
from sandbox_sdk.experiments.outcome import Outcome, decided_by, failed
from sandbox_sdk.experiments.prices import Prices
from sandbox_sdk.experiments.provenance import environment
from sandbox_sdk.experiments.recorder import Recorder
from sandbox_sdk.experiments.result import ResourceUse
from sandbox_sdk.experiments.run_folder import write_lock
from sandbox_sdk.experiments.spending import BudgetGate, Spending
from sandbox_sdk.experiments.tools import Tools
from sandbox_sdk.values import AttemptState, EndKind, Usage, Workplace

_GRACE_SECONDS = 5.0  # beyond limits.time, for what bounds itself by it to say so
_KEEP_SECONDS = 120.0
_USAGE_SECONDS = 2.0


class Attempt:
    """Runs one attempt in a sandbox and notes what happens.

    Args:
        config: The experiment.
        workplace: The sandbox.
        folder: The run's folder.
        recorder: Notes what happens.
        models: The client's models.
        gate: The budget it spends of; by default one without bounds.
        condition: The condition of its trial.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        workplace: Workplace,
        folder: Path,
        recorder: Recorder,
        models: ModelRegistry,
        *,
        gate: BudgetGate | None = None,
        condition: str = "",
    ) -> None:
        self._config = config
        self._workplace = workplace
        self._folder = folder
        self._recorder = recorder
        self._models = models
        self._gate = gate or BudgetGate.unbounded(Prices(config.prices))
        self._condition = condition
        self._before: Usage | None = None
        self._tools = Tools(
            config.tools or ("python",),
            workplace,
            folder,
            config.limits.tool_output,
            recorder,
            models.redactor,
        )

    async def run(self) -> Outcome:
        """Run it to its end and return how it ended.

        Raises:
            SandboxError: The sandbox could not be set up.
            StateError: The journal cannot be written.
        """
        allowance = Allowance(self._config.limits)
        provider = self._models.request(self._config)[0].name if self._config.model else None
        await self._recorder.durable(
            "attempt.started",
            sandbox=self._workplace.id,
            provider=provider,
            seed=self._config.sampling_seed,
        )
        await self._workplace.setup()
        await self._note_sandbox()
        outcome = allowance.out_of_time()
        with anyio.move_on_after(allowance.time_left + _GRACE_SECONDS):
            outcome = await self._guarded(allowance)
        if self._config.artifacts:
            await self._collect()
        return outcome

    async def usage(self) -> ResourceUse | None:
        """Return what the sandbox used since it stood ready, if it still lives."""
        after = None
        if self._before is None:
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

    async def _note_sandbox(self) -> None:
        workplace = self._workplace
        isolation = workplace.isolation
        told: Mapping[str, Any] | None = attrs.asdict(isolation) if isolation else None
        limits = [attrs.asdict(limit) for limit in workplace.limits]
        self._recorder.note("sandbox.ready", isolation=told, limits=limits)
        self._before = await workplace.usage()
        lock: dict[str, Any] = {
            "schema": 1,
            "environment": await anyio.to_thread.run_sync(environment),
            "sandbox": {"id": workplace.id, "isolation": told, "limits": limits},
            "model": self._config.model,
        }
        await write_lock(self._folder, lock)

    async def _prepare(self, allowance: Allowance) -> Outcome | None:
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
        if self._config.code is not None:
            return await self._code(self._config.code, allowance)
        provider, request = self._models.request(self._config)
        spending = Spending(self._gate, self._models.priced(self._config), self._condition)
        caller = ModelCaller(
            provider,
            self._config.retries,
            self._recorder,
            allowance,
            spending,
            self._models.cassette(self._config),
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

    async def _code(self, code: str, allowance: Allowance) -> Outcome:
        result = await self._tools.run("python", code, _finite(allowance.seconds))
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

    async def _collect(self) -> None:
        """Copy what the config asks for, as far as the sandbox still gives it."""
        collected = None
        reason = f"it took longer than {_KEEP_SECONDS:g} s"
        with anyio.move_on_after(_KEEP_SECONDS):
            try:
                collected = await self._workplace.collect(
                    self._config.artifacts, self._folder / ARTIFACTS
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
