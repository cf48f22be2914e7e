"""The conversation of one attempt: model, tools, model, until it ends or a limit ends it."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import anyio
import attrs

from sandbox_sdk.errors import (
    ModelAuthError,
    ModelError,
    ModelNotFound,
    UnsupportedParameter,
)
from sandbox_sdk.experiments import code_blocks
from sandbox_sdk.experiments.allowance import Allowance
from sandbox_sdk.experiments.config import ExperimentConfig
from sandbox_sdk.experiments.digests import digest
from sandbox_sdk.experiments.models import retries
from sandbox_sdk.experiments.models.base import ModelOutput, ModelProvider, ModelRequest, ToolUse
from sandbox_sdk.experiments.opening import opening, uses_blocks
from sandbox_sdk.experiments.outcome import (
    COMPLETED,
    Outcome,
    Stopped,
    decided_by,
    failed,
    stopped_by,
)
from sandbox_sdk.experiments.paid import PaidAnswers
from sandbox_sdk.experiments.recorder import Recorder
from sandbox_sdk.experiments.result import Failure, ToolError
from sandbox_sdk.experiments.spending import Charge, OutOfBudget, Spending
from sandbox_sdk.experiments.tools import ToolResult, Tools, tool_schemas
from sandbox_sdk.values import AttemptState

_WRONG_CONFIG = (ModelAuthError, ModelNotFound, UnsupportedParameter)
# What no retry mends, because the config asks for it.


class ModelLoop:
    """Asks the model and runs its tools.

    Args:
        config: The experiment.
        provider: Who answers for its model.
        request: The call without messages.
        tools: Runs tool calls; ``None`` where the model is offered none.
        recorder: Notes what happens.
        allowance: What the attempt may still use.
        spending: Reserves and settles what calls cost.
        past: Answers that were bought by an earlier attempt of the same trial.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        provider: ModelProvider,
        request: ModelRequest,
        tools: Tools | None,
        recorder: Recorder,
        allowance: Allowance,
        spending: Spending,
        *,
        past: PaidAnswers | None = None,
    ) -> None:
        self._config = config
        self._provider = provider
        self._tools = tools
        self._recorder = recorder
        self._allowance = allowance
        self._spending = spending
        self._past = past
        self._messages: list[Mapping[str, Any]] = []
        self._blocks = uses_blocks(config, supports_tools=provider.supports_tools)
        schemas = () if self._blocks else tool_schemas(config.tools)
        self._request = attrs.evolve(request, tools=schemas)

    async def run(self) -> Outcome:
        """Run the conversation to its end.

        Raises:
            StateError: The journal cannot be written; nothing was sent after that.
            SandboxEnded: The sandbox died.
        """
        for message in opening(self._config, blocks=self._blocks):
            self._say(message, opening=True)
        try:
            for call in range(1, self._config.limits.turns + 1):
                output = await self._ask(call)
                uses = self._uses(output, call)
                if not uses:
                    return self._end(output)
                results = await self._use(uses)
                if self._config.single_turn:
                    return _decided(results[-1])
        except Stopped as stop:
            return stop.outcome
        turns = self._config.limits.turns
        return stopped_by("turns", turns, turns)

    def _say(self, message: Mapping[str, Any], *, opening: bool = False) -> None:
        self._messages.append(message)
        self._recorder.message(message, opening=opening)

    async def _ask(self, call: int) -> ModelOutput:
        """Call the model: the request durable before it is sent, the answer before it is used."""
        if (over := self._allowance.out_of_calls(len(self._messages))) is not None:
            raise Stopped(over)
        request = attrs.evolve(
            self._request,
            messages=tuple(self._messages),
            parameters=self._allowance.cap(self._request.parameters),
            call=call,
        )
        identity = digest([request.model, request.messages, request.parameters, request.tools])
        if self._past and (paid := await self._past.answer(call, identity, self._recorder)):
            charge = self._spending.replayed(paid.output, at=paid.at)
            self._note_answer(call, identity, paid.output, charge, paid.duration, replayed=True)
            return self._heard(paid.output, charge)
        reserved = await self._reserve(request)
        await self._recorder.durable(
            "model.requested",
            call=call,
            reserved=reserved,
            provider=self._provider.name,
            model=request.model,
            messages=len(request.messages),
            parameters=request.parameters,
            tools=[tool["function"]["name"] for tool in request.tools],
            request=identity,
        )
        waited = 0.0

        async def on_retry(error: ModelError, wait: float, sends: int) -> None:
            nonlocal waited
            waited += wait
            billed = self._spending.failed(error)
            told = {"type": error.code, "message": error.message}
            scope.deadline = math.inf  # waiting for room in the budget is no work
            try:
                await self._reserve(request)
            except Stopped:
                await self._recorder.durable("model.failed", call=call, billed=billed, error=told)
                raise
            await self._recorder.durable(
                "model.retried", call=call, sends=sends, wait=wait, billed=billed, error=told
            )
            self._allowance.wait(wait)
            scope.deadline = anyio.current_time() + self._allowance.seconds

        started = time.monotonic()
        output: ModelOutput | None = None
        try:
            with anyio.move_on_after(self._allowance.seconds) as scope:
                output = await retries.generate(
                    self._provider, request, self._config.retries, on_retry
                )
        except ModelError as error:
            billed = self._spending.failed(error)
            await self._recorder.durable(
                "model.failed",
                call=call,
                billed=billed,
                error={"type": error.code, "message": error.message},
            )
            raise Stopped(_model_failure(error, first=call == 1)) from None
        finally:
            if output is None:
                self._spending.lost()
        if output is None:
            raise Stopped(self._allowance.out_of_time())
        output = _with_ids(output, call)
        charge = self._spending.answered(output)
        self._note_answer(call, identity, output, charge, time.monotonic() - started - waited)
        await self._recorder.commit()
        return self._heard(output, charge)

    # Any: what the journal keeps, which is JSON.
    async def _reserve(self, request: ModelRequest) -> dict[str, Any]:
        """Wait for room in the budget; the attempt ends if there will be none."""
        waited = self._spending.waited
        try:
            with anyio.move_on_after(self._allowance.time_left):
                return await self._spending.reserve(request)
        except OutOfBudget as over:
            raise Stopped(over.outcome) from None
        finally:
            self._allowance.wait(self._spending.waited - waited)
        raise Stopped(self._allowance.out_of_time())

    def _note_answer(
        self,
        call: int,
        request: str,
        output: ModelOutput,
        charge: Charge,
        duration: float,
        *,
        replayed: bool = False,
    ) -> None:
        self._recorder.note(
            "model.responded",
            call=call,
            request=request,
            replayed=replayed,
            cost=charge.cost.to_json() if charge.cost else None,
            duration=duration,
            **attrs.asdict(output),
        )

    def _heard(self, output: ModelOutput, charge: Charge) -> ModelOutput:
        """Take a recorded answer into the conversation."""
        self._allowance.spend(charge.amount)
        if output.stop_reason == "model_length":
            raise Stopped(stopped_by("context", None, None))
        self._say(output.message)
        return output

    def _uses(self, output: ModelOutput, call: int) -> tuple[ToolUse, ...]:
        if not self._blocks:
            return output.tool_uses if self._config.tools else ()
        use = code_blocks.find_block(output.text, self._config.tools)
        if use is None and code_blocks.is_cut(output.text, self._config.tools):
            self._recorder.note(
                "warning", text="the answer ends inside a code block, which was not run"
            )
        return () if use is None else (attrs.evolve(use, id=f"call_{call}_1"),)

    async def _use(self, uses: tuple[ToolUse, ...]) -> list[ToolResult]:
        """Run the calls in order. Every call gets a result, even those a limit keeps from it."""
        tools = self._tools
        if tools is None:
            raise AssertionError("unreachable: a model that is offered no tools uses none")
        results: list[ToolResult] = []
        stop: Outcome | None = None
        for use in uses:
            stop = stop or self._allowance.out_of_tools(tools.calls, tools.seconds)
            if stop is None:
                timeout = self._allowance.tool_timeout(tools.seconds)
                result = await tools.use(use, timeout)
            else:
                kind = stop.limit.type if stop.limit else "limit"
                error = ToolError(type="limit", message=f"not run: the limit on {kind} was reached")
                result = await tools.refuse(use, error)
            results.append(result)
            if self._blocks:
                self._say({"role": "user", "content": code_blocks.feedback(use, result)})
            else:
                self._say({"role": "tool", "tool_call_id": use.id, "content": result.text})
        if stop is None and self._allowance.seconds <= 0:
            stop = self._allowance.out_of_time()
        if stop is not None:
            raise Stopped(stop)
        return results

    def _end(self, output: ModelOutput) -> Outcome:
        cut = output.stop_reason == "max_tokens"
        return (self._allowance.out_of_tokens() if cut else None) or COMPLETED


def _model_failure(error: ModelError, *, first: bool) -> Outcome:
    outcome = failed(AttemptState.MODEL_ERROR, error)
    # No model answered, and none will: the caller has to change what he wrote.
    raises = error if first and isinstance(error, _WRONG_CONFIG) else None
    return attrs.evolve(outcome, raises=raises)


def _decided(result: ToolResult) -> Outcome:
    if result.ended is not None:
        return decided_by(result.ended, result.output)
    error = result.error or ToolError(type="unknown", message="nothing was run")
    failure = Failure(type=error.type, message=error.message)
    return Outcome(state=AttemptState.AGENT_ERROR, error=failure)


def _with_ids(output: ModelOutput, call: int) -> ModelOutput:
    """Give every tool call an id of its own: models leave ids out, and repeat them."""
    seen: set[str] = set()
    uses: list[ToolUse] = []
    for index, use in enumerate(output.tool_uses, start=1):
        taken = not use.id or use.id in seen
        uses.append(attrs.evolve(use, id=f"call_{call}_{index}") if taken else use)
        seen.add(use.id)
    return attrs.evolve(output, tool_uses=tuple(uses))
