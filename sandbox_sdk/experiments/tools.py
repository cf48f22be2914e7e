"""The tools a model may use, both in the sandbox, and how a call becomes a result."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import attrs

from sandbox_sdk.errors import SandboxEnded
from sandbox_sdk.experiments.artifacts import keep_artifact
from sandbox_sdk.experiments.models.base import ToolUse
from sandbox_sdk.experiments.recorder import Recorder
from sandbox_sdk.experiments.redaction import Redactor
from sandbox_sdk.experiments.result import ToolError
from sandbox_sdk.experiments.tool_output import code_text, command_text, shorten, verdict
from sandbox_sdk.values import Artifact, Ended, EndKind, Workplace

_ARGUMENT = {"python": "code", "bash": "command"}

_ABOUT = {
    "python": (
        "Run a Python program in the sandbox and return what it writes and the value of its last "
        "expression. Each call starts a fresh interpreter; files stay."
    ),
    "bash": (
        "Run a bash command in the sandbox and return what it writes. Each call starts a fresh "
        "shell; files stay."
    ),
}

_BROKEN = frozenset({EndKind.SANDBOX_DIED, EndKind.INFRA})


def tool_schemas(names: tuple[str, ...]) -> tuple[dict[str, Any], ...]:
    """Return the tools' definitions in OpenAI's form."""
    return tuple(
        {
            "type": "function",
            "function": {
                "name": name,
                "description": _ABOUT[name],
                "parameters": {
                    "type": "object",
                    "properties": {_ARGUMENT[name]: {"type": "string"}},
                    "required": [_ARGUMENT[name]],
                    "additionalProperties": False,
                },
            },
        }
        for name in names
    )


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


class Tools:
    """Runs the tool calls of one attempt, one after the other, and notes each.

    Args:
        names: The tools there are.
        workplace: Where they run.
        folder: The run's folder, for whole outputs.
        output_bytes: What the model sees of one output.
        recorder: Notes each call.
        redactor: Cleans what is kept as an artifact.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        workplace: Workplace,
        folder: Path,
        output_bytes: int,
        recorder: Recorder,
        redactor: Redactor,
    ) -> None:
        self.calls = 0
        self.seconds = 0.0
        self._names = names
        self._workplace = workplace
        self._folder = folder
        self._output_bytes = output_bytes
        self._recorder = recorder
        self._redactor = redactor

    async def use(self, use: ToolUse, timeout: float) -> ToolResult:
        """Run what the model asks for; a bad call is a result too, for the model to mend.

        Raises:
            SandboxEnded: The sandbox died, which is not the model's doing.
        """
        parsed = self._parse(use)
        return await self._noted(use, parsed, timeout)

    async def refuse(self, use: ToolUse, error: ToolError) -> ToolResult:
        """Note a call that is not run, and return what the model would see."""
        return await self._noted(use, error, 0)

    async def run(self, name: str, program: str, timeout: float | None) -> ToolResult:
        """Run a program and return what came of it, without noting it.

        Raises:
            SandboxEnded: The sandbox died.
        """
        started = time.monotonic()
        if name == "python":
            code = await self._workplace.run_code(program, timeout=timeout)
            ended, text = code.ended, code_text(code)
        else:
            command = await self._workplace.run_command(program, timeout=timeout)
            ended, text = command.ended, command_text(command)
        duration = time.monotonic() - started
        if ended.kind in _BROKEN:
            raise SandboxEnded(
                f"the sandbox died while it ran {name}: {ended}; run the experiment again in a "
                "new sandbox",
                sandbox_id=self._workplace.id,
                ended=ended,
            )
        text = self._redactor.text(text)
        shown = shorten(text, self._output_bytes)
        artifact = None
        if shown.cut:
            whole = text.encode("utf-8", "replace")
            artifact = await keep_artifact(self._folder, f"output-{self.calls}.txt", whole)
        parts = [shown.text or "[no output]", verdict(ended)]
        return ToolResult(
            text="\n".join(part.rstrip("\n") if len(parts) > 1 else part for part in parts if part),
            output=shown.text,
            ended=ended,
            error=None if ended.kind is EndKind.OK else _tool_error(ended),
            duration=duration,
            raw_bytes=shown.raw_bytes,
            kept_bytes=shown.kept_bytes,
            artifact=artifact,
        )

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
            result = await self.run(use.name, parsed[_ARGUMENT[use.name]], timeout)
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

    def _parse(self, use: ToolUse) -> dict[str, Any] | ToolError:
        if use.name not in self._names:
            known = ", ".join(self._names)
            return ToolError(
                type="unknown_tool", message=f"there is no tool {use.name!r}; there are: {known}"
            )
        wanted = _ARGUMENT[use.name]
        try:
            arguments = json.loads(use.arguments)
        except (ValueError, RecursionError) as error:
            return ToolError(
                type="parsing",
                message=f'the arguments are not valid JSON ({error}); write {{"{wanted}": "..."}}',
            )
        match arguments:
            case {**given} if set(given) == {wanted} and isinstance(given[wanted], str):
                return cast("dict[str, Any]", given)
            case _:
                return ToolError(
                    type="parsing",
                    message=f'{use.name} takes exactly {{"{wanted}": "..."}}, with text',
                )


def _tool_error(ended: Ended) -> ToolError:
    return ToolError(type=ended.kind.value, message=str(ended))
