"""The tool calls of an attempt: checked, run in the sandbox, noted, told to the model."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import attrs

from sandbox_sdk.errors import ConfigError, SandboxEnded
from sandbox_sdk.experiments.models.base import ToolUse
from sandbox_sdk.experiments.records.artifacts import keep_artifact
from sandbox_sdk.experiments.records.payloads import PLAIN, Payloads
from sandbox_sdk.experiments.records.recorder import Recorder
from sandbox_sdk.experiments.records.redaction import Redactor
from sandbox_sdk.experiments.results.result import ToolError
from sandbox_sdk.experiments.tools.tool_arguments import parse_arguments
from sandbox_sdk.experiments.tools.tool_kinds import ToolName, make_tool, run_program
from sandbox_sdk.experiments.tools.tool_output import shorten, verdict
from sandbox_sdk.experiments.tools.tool_run import ToolRun
from sandbox_sdk.values import Artifact, Ended, EndKind, Workplace

_BROKEN = frozenset({EndKind.SANDBOX_DIED, EndKind.INFRA})


@attrs.frozen(kw_only=True)
class ToolResult:
    """What came of one tool call.

    Attributes:
        text: What the model sees.
        output: The part of it that the program wrote.
        ended: How it ended; ``None`` if nothing was run.
        error: Why it failed, where it did.
        duration: Seconds.
        raw_bytes: Bytes of output before it was cut.
        kept_bytes: Bytes of output in the text.
        artifact: The whole output, where it was cut.
    """

    text: str
    output: str = ""
    ended: Ended | None = None
    error: ToolError | None = None
    duration: float = 0.0
    raw_bytes: int = 0
    kept_bytes: int = 0
    artifact: Artifact | None = None

    @property
    def bad(self) -> bool:
        """Whether the call could not be read, or was of no tool there is."""
        return self.error is not None and self.error.type in ("parsing", "unknown_tool")


class Tools:
    """Runs the tool calls of one attempt, and notes each.

    Args:
        tools: The tools there are.
        workplace: Where they run.
        folder: The run's folder, for whole outputs.
        output_bytes: What the model sees of one output.
        recorder: Notes each call.
        redactor: Cleans what is kept as an artifact.
        payloads: Keeps it.
    """

    def __init__(
        self,
        tools: Sequence[ToolName],
        workplace: Workplace,
        folder: Path,
        output_bytes: int,
        recorder: Recorder,
        redactor: Redactor,
        payloads: Payloads = PLAIN,
    ) -> None:
        self.calls = 0
        self.seconds = 0.0
        self._tools = {tool.name: tool for tool in map(make_tool, tools)}
        self._workplace = workplace
        self._folder = folder
        self._output_bytes = output_bytes
        self._recorder = recorder
        self._redactor = redactor
        self._payloads = payloads

    async def use(self, use: ToolUse, timeout: float) -> ToolResult:
        """Run what the model asks for; a bad call is a result too, for the model to mend.

        Raises:
            SandboxEnded: The sandbox died, which is not the model's doing.
        """
        return await self._noted(use, self._parse(use), timeout)

    def may_run_together(self, uses: Sequence[ToolUse]) -> bool:
        """Return whether several calls may run side by side: every tool has to say so."""
        tools = [self._tools.get(use.name) for use in uses]
        return len(uses) > 1 and all(tool is not None and tool.parallel for tool in tools)

    async def use_together(self, uses: Sequence[ToolUse], timeout: float) -> list[ToolResult]:
        """Run several calls side by side, and return what came of them in their order.

        Raises:
            SandboxEnded: The sandbox died; the others are given up.
        """
        results: dict[int, ToolResult] = {}
        died: list[SandboxEnded] = []

        async def run(index: int, use: ToolUse) -> None:
            try:
                results[index] = await self.use(use, timeout)
            except SandboxEnded as ended:
                died.append(ended)
                group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            for index, use in enumerate(uses):
                group.start_soon(run, index, use)
        if died:
            raise died[0]
        return [results[index] for index in range(len(uses))]

    async def refuse(self, use: ToolUse, error: ToolError) -> ToolResult:
        """Note a call that is not run, and return what the model would see."""
        return await self._noted(use, error, 0)

    async def run(self, language: str, program: str, timeout: float | None) -> ToolResult:
        """Run a program and return what came of it, without noting it.

        Raises:
            SandboxEnded: The sandbox died.
        """
        started = time.monotonic()
        ran = await run_program(language, program, self._workplace, timeout)
        return await self._shown(language, ran, time.monotonic() - started, self.calls)

    async def _noted(
        self, use: ToolUse, parsed: Mapping[str, Any] | ToolError, timeout: float
    ) -> ToolResult:
        self.calls += 1
        index = self.calls
        arguments = {"raw": use.arguments} if isinstance(parsed, ToolError) else parsed
        self._recorder.note(
            "tool.requested", index=index, id=use.id, name=use.name, arguments=arguments
        )
        if isinstance(parsed, ToolError):
            result = ToolResult(text=f"error: {parsed.message}", error=parsed)
        else:
            started = time.monotonic()
            try:
                ran = await self._tools[use.name].run(self._workplace, parsed, timeout)
            except ConfigError as error:
                # Such as a NUL in a command, or one that no argument is long enough for.
                ran = ToolRun(text="", error=ToolError(type="parsing", message=error.message))
            result = await self._shown(use.name, ran, time.monotonic() - started, index)
        self.seconds += result.duration
        self._recorder.note(
            "tool.finished",
            index=index,
            result=result.text,
            ended=attrs.asdict(result.ended) if result.ended else None,
            error=attrs.asdict(result.error) if result.error else None,
            exit_code=result.ended.exit_code if result.ended else None,
            duration=result.duration,
            raw_bytes=result.raw_bytes,
            kept_bytes=result.kept_bytes,
            artifact=attrs.asdict(result.artifact) if result.artifact else None,
        )
        return result

    async def _shown(self, name: str, ran: ToolRun, duration: float, index: int) -> ToolResult:
        """Cut what a tool did to what the model sees.

        Raises:
            SandboxEnded: The sandbox died.
        """
        ended = ran.ended
        if ended is not None and ended.kind in _BROKEN:
            raise SandboxEnded(
                f"the sandbox died while it ran {name}: {ended}; run the experiment again in a "
                "new sandbox",
                sandbox_id=self._workplace.id,
                ended=ended,
            )
        if ended is None:
            message = ran.error.message if ran.error else ""
            text = self._redactor.text(f"error: {message}")
            return ToolResult(text=text, error=ran.error, duration=duration)
        text = self._redactor.text(ran.text)
        shown = shorten(text, self._output_bytes)
        artifact = None
        if shown.cut:
            whole = text.encode("utf-8", "replace")
            artifact = await keep_artifact(
                self._folder, f"output-{index}.txt", whole, self._payloads
            )
        parts = [shown.text or "[no output]", verdict(ended)]
        return ToolResult(
            text="\n".join(part.rstrip("\n") if len(parts) > 1 else part for part in parts if part),
            output=shown.text,
            ended=ended,
            error=ran.error,
            duration=duration,
            raw_bytes=shown.raw_bytes,
            kept_bytes=shown.kept_bytes,
            artifact=artifact,
        )

    def _parse(self, use: ToolUse) -> dict[str, Any] | ToolError:
        tool = self._tools.get(use.name)
        if tool is None:
            known = ", ".join(self._tools)
            return ToolError(
                type="unknown_tool", message=f"there is no tool {use.name!r}; there are: {known}"
            )
        return parse_arguments(use.arguments, use.name, tool.parameters)
