"""The kinds of tools there are: what the model is told of each, and how a call of it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import attrs

from sandbox_sdk.experiments import fields
from sandbox_sdk.experiments.results.result import ToolError
from sandbox_sdk.experiments.tools.files_tool import FilesTool
from sandbox_sdk.experiments.tools.functions import FunctionTool, read_function
from sandbox_sdk.experiments.tools.tool_output import code_text, command_text
from sandbox_sdk.experiments.tools.tool_run import ToolRun
from sandbox_sdk.parse import Faults
from sandbox_sdk.values import EndKind, Workplace

ToolName = str | FunctionTool
"""A tool in a config: the name of one of ours, or a function."""

PROGRAMS = ("python", "bash")
"""The tools that run what the model writes; only they can be asked for by a code block."""

_NAMES = (*PROGRAMS, "files")

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


class Tool(Protocol):
    """Something that a model may use."""

    @property
    def name(self) -> str:
        """How the model calls it."""
        ...

    @property
    def description(self) -> str:
        """What the model is told of it."""
        ...

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The JSON schema of its arguments."""
        ...

    @property
    def parallel(self) -> bool:
        """Whether calls of it may run side by side with others that may."""
        ...

    async def run(
        self, workplace: Workplace, arguments: Mapping[str, Any], timeout: float | None
    ) -> ToolRun:
        """Run a call whose arguments fit the schema.

        Raises:
            SandboxEnded: The sandbox died.
        """
        ...


@attrs.frozen
class ProgramTool:
    """Runs a program that the model writes, each time in a fresh process.

    Attributes:
        name: ``python`` or ``bash``.
        parallel: Never: programs share the workspace, so their order matters.
    """

    name: str
    parallel: bool = attrs.field(default=False, init=False)

    @property
    def description(self) -> str:
        """What the model is told of it."""
        return _ABOUT[self.name]

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The schema of its one argument."""
        argument = _ARGUMENT[self.name]
        return {
            "type": "object",
            "properties": {argument: {"type": "string"}},
            "required": [argument],
            "additionalProperties": False,
        }

    async def run(
        self, workplace: Workplace, arguments: Mapping[str, Any], timeout: float | None
    ) -> ToolRun:
        """Run the program."""
        return await run_program(self.name, arguments[_ARGUMENT[self.name]], workplace, timeout)


@attrs.frozen
class FunctionRunner:
    """Calls a user's function in a fresh interpreter inside.

    Attributes:
        function: The function.
    """

    function: FunctionTool

    @property
    def name(self) -> str:
        """The function's name."""
        return self.function.name

    @property
    def description(self) -> str:
        """Its description."""
        return self.function.description

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The schema of its arguments."""
        return self.function.parameters

    @property
    def parallel(self) -> bool:
        """Whether its calls may run side by side."""
        return self.function.parallel

    async def run(
        self, workplace: Workplace, arguments: Mapping[str, Any], timeout: float | None
    ) -> ToolRun:
        """Call the function."""
        return await run_program("python", self.function.program(arguments), workplace, timeout)


async def run_program(
    language: str, program: str, workplace: Workplace, timeout: float | None
) -> ToolRun:
    """Run a program and return what it wrote and how it ended."""
    if language == "python":
        code = await workplace.run_code(program, timeout=timeout)
        ended, text = code.ended, code_text(code)
    else:
        command = await workplace.run_command(program, timeout=timeout)
        ended, text = command.ended, command_text(command)
    failed = ended.kind is not EndKind.OK
    error = ToolError(type=ended.kind.value, message=str(ended)) if failed else None
    return ToolRun(text=text, ended=ended, error=error)


def make_tool(tool: ToolName) -> Tool:
    """Return the tool that a config means."""
    if isinstance(tool, FunctionTool):
        return FunctionRunner(tool)
    return FilesTool() if tool == "files" else ProgramTool(tool)


def tool_schemas(tools: Sequence[ToolName]) -> tuple[dict[str, Any], ...]:
    """Return the tools' definitions in OpenAI's form."""
    return tuple(
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": dict(tool.parameters),
            },
        }
        for tool in map(make_tool, tools)
    )


def programs_of(tools: Sequence[ToolName]) -> tuple[str, ...]:
    """Return the tools that can be asked for by a code block."""
    return tuple(tool for tool in tools if isinstance(tool, str) and tool in PROGRAMS)


def read_tools(value: object, path: str) -> tuple[ToolName, ...]:
    """Read the tools of a config: names of ours, and functions.

    Raises:
        ConfigError: One is none; all faults at once.
    """
    found: tuple[ToolName, ...] = fields.list_of(_read)(value, path)
    by_name: dict[str, ToolName] = {}
    faults = Faults()
    for index, tool in enumerate(found):
        name = make_tool(tool).name
        # A tool asked for twice is offered once.
        if by_name.setdefault(name, tool) != tool:
            faults.add(f"{path}[{index}]", f"another tool is called {name!r} too")
    faults.check()
    return tuple(by_name.values())


def _read(value: object, path: str) -> ToolName:
    return (
        fields.word(*_NAMES)(value, path) if isinstance(value, str) else read_function(value, path)
    )
