"""The conversation of one attempt: model, tools, model, until it ends or a limit ends it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from sandbox_sdk.experiments.allowance import Allowance
from sandbox_sdk.experiments.batches.opening import opening, uses_blocks
from sandbox_sdk.experiments.config import ExperimentConfig
from sandbox_sdk.experiments.model_call import ModelCaller
from sandbox_sdk.experiments.models.base import ModelOutput, ModelRequest, ToolUse
from sandbox_sdk.experiments.records.recorder import Recorder
from sandbox_sdk.experiments.results.outcome import (
    COMPLETED,
    Outcome,
    Stopped,
    decided_by,
    stopped_by,
)
from sandbox_sdk.experiments.results.result import Failure, ToolError
from sandbox_sdk.experiments.tools import code_blocks
from sandbox_sdk.experiments.tools.tool_kinds import programs_of, tool_schemas
from sandbox_sdk.experiments.tools.tools import ToolResult, Tools
from sandbox_sdk.values import AttemptState


class ModelLoop:
    """Asks the model and runs its tools.

    Args:
        config: The experiment.
        caller: Makes the calls of its model.
        request: The call without messages.
        tools: Runs tool calls; ``None`` where the model is offered none.
        recorder: Notes what happens.
        allowance: What the attempt may still use.
        supports_tools: Whether the model can be expected to use OpenAI's ``tools``.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        caller: ModelCaller,
        request: ModelRequest,
        tools: Tools | None,
        recorder: Recorder,
        allowance: Allowance,
        *,
        supports_tools: bool,
    ) -> None:
        self._config = config
        self._caller = caller
        self._tools = tools
        self._recorder = recorder
        self._allowance = allowance
        self._messages: list[Mapping[str, Any]] = []
        self._blocks = uses_blocks(config, supports_tools=supports_tools)
        self._programs = programs_of(config.tools)
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
                filtered = output.stop_reason == "content_filter"
                if (over := self._allowance.out_of_patience(filtered=filtered)) is not None:
                    return over
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
        """Call the model, and take its answer into the conversation."""
        if (over := self._allowance.out_of_calls(len(self._messages))) is not None:
            raise Stopped(over)
        request = attrs.evolve(
            self._request,
            messages=tuple(self._messages),
            parameters=self._allowance.cap(self._request.parameters),
            call=call,
        )
        output = await self._caller.ask(request)
        if output.stop_reason == "model_length":
            raise Stopped(stopped_by("context", None, None))
        self._say(output.message)
        return output

    def _uses(self, output: ModelOutput, call: int) -> tuple[ToolUse, ...]:
        if not self._blocks:
            return output.tool_uses if self._config.tools else ()
        use = code_blocks.find_block(output.text, self._programs)
        if use is None and code_blocks.is_cut(output.text, self._programs):
            self._recorder.note(
                "warning", text="the answer ends inside a code block, which was not run"
            )
        return () if use is None else (attrs.evolve(use, id=f"call_{call}_1"),)

    async def _use(self, uses: tuple[ToolUse, ...]) -> list[ToolResult]:
        """Run the calls. Every call gets a result, even those a limit keeps from it."""
        tools = self._tools
        if tools is None:
            raise AssertionError("unreachable: a model that is offered no tools uses none")
        together = await self._use_together(tools, uses)
        results: list[ToolResult] = []
        stop: Outcome | None = None
        for index, use in enumerate(uses):
            result = together[index] if together else None
            if result is None:
                stop = stop or self._allowance.out_of_tools(tools.calls, tools.seconds)
                result = await self._run_or_refuse(tools, use, stop)
            results.append(result)
            if self._blocks:
                self._say({"role": "user", "content": code_blocks.feedback(use, result)})
            else:
                self._say({"role": "tool", "tool_call_id": use.id, "content": result.text})
            stop = stop or self._allowance.too_many_bad_calls(bad=result.bad)
        if stop is None and self._allowance.seconds <= 0:
            stop = self._allowance.out_of_time()
        if stop is not None:
            raise Stopped(stop)
        return results

    async def _use_together(self, tools: Tools, uses: tuple[ToolUse, ...]) -> list[ToolResult]:
        """Run calls side by side where every tool allows it, and no limit stands between them."""
        last = tools.calls + len(uses) - 1
        if not tools.may_run_together(uses) or self._allowance.out_of_tools(last, tools.seconds):
            return []
        return await tools.use_together(uses, self._allowance.tool_timeout(tools.seconds))

    async def _run_or_refuse(self, tools: Tools, use: ToolUse, stop: Outcome | None) -> ToolResult:
        if stop is None:
            return await tools.use(use, self._allowance.tool_timeout(tools.seconds))
        kind = stop.limit.type if stop.limit else "limit"
        error = ToolError(type="limit", message=f"not run: the limit on {kind} was reached")
        return await tools.refuse(use, error)

    def _end(self, output: ModelOutput) -> Outcome:
        cut = output.stop_reason == "max_tokens"
        return (self._allowance.out_of_tokens() if cut else None) or COMPLETED


def _decided(result: ToolResult) -> Outcome:
    if result.ended is not None:
        return decided_by(result.ended, result.output)
    error = result.error or ToolError(type="unknown", message="nothing was run")
    failure = Failure(type=error.type, message=error.message)
    return Outcome(state=AttemptState.AGENT_ERROR, error=failure)
