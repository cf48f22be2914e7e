"""Tools of a model: the files tool, functions whose source is shipped, and calls side by side."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from openai_server import ScriptedServer, says, scripted_server
from plain_workplace import PlainWorkplace

from sandbox_sdk.errors import ConfigError
from sandbox_sdk.experiments.config import ExperimentConfig
from sandbox_sdk.experiments.models.registry import ModelRegistry
from sandbox_sdk.experiments.records.run_record import read_run
from sandbox_sdk.experiments.results.result import ExperimentResult, ToolCall
from sandbox_sdk.experiments.run import run_experiment
from sandbox_sdk.experiments.tools.files_tool import LARGEST_FILE
from sandbox_sdk.experiments.tools.functions import FunctionTool, read_function
from sandbox_sdk.experiments.tools.tool_arguments import parse_arguments
from sandbox_sdk.values import AttemptState, CodeResult

pytestmark = pytest.mark.anyio

OUTSIDE = 3


class Bench:
    """A workplace, models, and a folder for runs."""

    def __init__(self, folder: Path) -> None:
        self.runs_dir = folder / "runs"
        self.workplace = PlainWorkplace(folder / "work")
        self.models = ModelRegistry(environ={})

    async def run(self, **config: Any) -> ExperimentResult:
        result = await run_experiment(
            config, self.workplace, runs_dir=self.runs_dir, models=self.models
        )
        assert read_run(self.runs_dir / result.id).result == result
        return result

    async def play(self, *script: Any, **config: Any) -> ExperimentResult:
        """Run a script."""
        parameters = {"extra_body": {"script": list(script)}}
        return await self.run(
            **{"model": "mock/script", "prompt": "go", "parameters": parameters, **config}
        )

    async def files(self, *calls: dict[str, Any], **config: Any) -> tuple[ToolCall, ...]:
        """Make calls of the files tool, one per turn."""
        script = [call("files", arguments) for arguments in calls]
        return (await self.play(*script, "done", tools=["files"], **config)).tool_calls


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncGenerator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    await bench.models.aclose()


@pytest.fixture
async def server() -> AsyncGenerator[ScriptedServer]:
    async with scripted_server() as server:
        yield server


def call(name: str, arguments: Any) -> dict[str, Any]:
    return {"tool_calls": [{"name": name, "arguments": arguments}]}


def together(*calls: tuple[str, Any]) -> dict[str, Any]:
    return {"tool_calls": [{"name": name, "arguments": given} for name, given in calls]}


def faults_of(value: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        read_function(value, "tools[0]")
    return "\n".join(caught.value.faults)


async def test_files_are_written_read_edited_and_listed(bench: Bench) -> None:
    text = "one\ntwo 'quoted' $HOME\nthree\n"
    wrote, read, lines, edited, again, listed = await bench.files(
        {"action": "write", "path": "sub/a.txt", "content": text},
        {"action": "read", "path": "sub/a.txt"},
        {"action": "read", "path": "sub/a.txt", "first_line": 2, "last_line": 2},
        {"action": "edit", "path": "sub/a.txt", "old": "three", "new": "four"},
        {"action": "read", "path": "sub/a.txt", "first_line": 3},
        {"action": "list", "path": "."},
    )
    assert wrote.result == f"wrote {len(text)} bytes to sub/a.txt"
    assert read.result == text.rstrip("\n")
    assert lines.result == "two 'quoted' $HOME"
    assert edited.result == "edited sub/a.txt"
    assert again.result == "four"
    assert listed.result == "sub/"
    assert not [made.error for made in (wrote, read, lines, edited, again, listed) if made.error]
    path = bench.workplace.folder / "sub" / "a.txt"
    assert path.read_text() == text.replace("three", "four")
    # No program was started for any of it.
    assert bench.workplace.commands == []


@pytest.mark.parametrize(
    ("arguments", "kind", "said"),
    [
        ({"action": "read", "path": "none"}, "file_not_found", "No such file"),
        ({"action": "read", "path": "folder"}, "is_a_directory", "Is a directory"),
        ({"action": "list", "path": "text"}, "not_a_directory", "Not a directory"),
        ({"action": "read", "path": "bytes"}, "unicode_decode", "no UTF-8 text"),
        ({"action": "read", "path": "large"}, "limit", "too large"),
        ({"action": "read", "path": "text", "first_line": 9}, "out_of_range", "has 2"),
        ({"action": "read", "path": "text", "first_line": 0}, "out_of_range", "from 1"),
        ({"action": "edit", "path": "text", "old": "a", "new": "b"}, "no_match", "stands 2 times"),
        ({"action": "edit", "path": "text", "old": "x", "new": "b"}, "no_match", "stands 0 times"),
        ({"action": "edit", "path": "text", "old": "", "new": "b"}, "no_match", "is empty"),
        ({"action": "edit", "path": "text", "old": "a"}, "parsing", 'needs "new"'),
        ({"action": "write", "path": "text"}, "parsing", 'needs "content"'),
        ({"action": "delete", "path": "text"}, "parsing", '"read", "write", "edit", "list"'),
        ({"action": "read"}, "parsing", '"path" is missing'),
        ({"action": "read", "path": 3}, "parsing", "of type string"),
    ],
)
async def test_what_fails_with_a_file_goes_back_to_the_model_as_what_it_is(
    bench: Bench, arguments: dict[str, Any], kind: str, said: str
) -> None:
    folder = bench.workplace.folder
    await anyio.Path(folder / "folder").mkdir(parents=True)
    (folder / "text").write_text("a\na\n")
    (folder / "bytes").write_bytes(b"\xff\xfe")
    (folder / "large").write_bytes(b"x" * (LARGEST_FILE + 1))
    (made,) = await bench.files(arguments)
    assert made.error is not None
    assert (made.error.type, made.result) == (kind, f"error: {made.error.message}")
    assert said in made.result
    assert (folder / "text").read_text() == "a\na\n"


async def test_a_file_that_hangs_ends_at_the_tools_timeout(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(path: str, *, max_bytes: int | None = None) -> bytes:
        await anyio.sleep_forever()
        raise AssertionError("unreachable")

    monkeypatch.setattr(bench.workplace.files, "read", hang)
    (made,) = await bench.files({"action": "read", "path": "x"}, limits={"tool_timeout": 0.2})
    assert made.error is not None
    assert made.error.type == "timeout"
    assert "[ended: timeout (timeout 0.2)]" in made.result


def multiply(first: int, second: int = 2, *, note: str | None = None) -> dict[str, Any]:
    """Multiply two numbers.

    Args:
        first: One of them.
        second: The other.
        note: Anything.
    """
    import math

    return {"product": math.prod([first, second]), "note": note}


def recursive(n: int) -> str:
    helper = [recursive(k) for k in range(n)]
    print("called", n)  # noqa: T201 - what it writes is seen, too
    return f"{n}{''.join(helper)}"


TYPED = """
def typed(
    a: Literal["x", "y"],
    b: list[int],
    c: dict[str, float],
    d: "bool | None",
    e,
    f: float = 1.5,
    *,
    g: Optional[str] = None,
): pass
"""


def test_a_function_is_told_by_its_signature_and_docstring() -> None:
    tool = read_function(multiply, "tools[0]")
    assert tool.name == "multiply"
    assert tool.description.startswith("Multiply two numbers.\n\nArgs:\n    first: One of them.")
    assert tool.parameters == {
        "type": "object",
        "properties": {
            "first": {"type": "integer"},
            "second": {"type": "integer"},
            "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        },
        "required": ["first"],
        "additionalProperties": False,
    }
    assert read_function({"source": TYPED}, "tools[0]").parameters["properties"] == {
        "a": {"enum": ["x", "y"]},
        "b": {"type": "array", "items": {"type": "integer"}},
        "c": {"type": "object", "additionalProperties": {"type": "number"}},
        "d": {"anyOf": [{"type": "boolean"}, {"type": "null"}]},
        "e": {},
        "f": {"type": "number"},
        "g": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    }


async def test_a_function_runs_in_the_workplace_and_its_value_goes_back(bench: Bench) -> None:
    result = await bench.play(
        call("multiply", {"first": 6, "second": 7, "note": "ü'\"\\"}),
        call("recursive", {"n": 1}),
        call("multiply", {"first": "6"}),
        "done",
        tools=[multiply, recursive],
    )
    first, second, third = result.tool_calls
    assert json.loads(first.result) == {"product": 42, "note": "ü'\"\\"}
    assert second.result == "called 0\ncalled 1\n10"
    assert third.error is not None
    assert third.error.type == "parsing"
    assert '"first" must be of type integer' in third.result
    assert len(bench.workplace.commands) == 2


async def test_a_function_that_raises_is_a_result(bench: Bench) -> None:
    source = "def fails(x: int) -> int:\n    return 1 // x\n"
    result = await bench.play(call("fails", {"x": 0}), "done", tools=[{"source": source}])
    (made,) = result.tool_calls
    assert made.error is not None
    assert made.error.type == "nonzero"
    assert "ZeroDivisionError" in made.result


async def test_a_plan_holds_the_source_and_reads_back_as_the_same_experiment(bench: Bench) -> None:
    result = await bench.play("x", tools=["python", multiply])
    plan = read_run(bench.runs_dir / result.id).plan["config"]
    written = {name: value for name, value in plan.items() if value not in (None, [], {})}
    config = ExperimentConfig.read(written)
    assert config.digest == result.config_digest
    (_, tool) = config.tools
    assert isinstance(tool, FunctionTool)
    assert tool == read_function(multiply, "tools[1]")


def closure() -> Callable[[int], int]:
    base = 3

    def add(x: int) -> int:
        return x + base

    return add


def uses_module(x: int) -> str:
    return json.dumps([x, OUTSIDE])


def inner_uses_module() -> list[int]:
    return [value + 1 for value in (lambda: [OUTSIDE])()]


class Thing:
    def method(self) -> None:
        """Do nothing."""


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (closure(), "is a closure over base"),
        (lambda x: x, "is a lambda"),
        (uses_module, "uses OUTSIDE, json of its module"),
        (inner_uses_module, "uses OUTSIDE of its module"),
        (Thing().method, "must be a function written with def"),
        (len, "must be a function written with def"),
        (Thing, "must be a function written with def"),
        (3, "must be a mapping"),
        ({}, "tools[0].source: is required"),
        ({"source": "def f(:"}, "is not valid Python"),
        ({"source": "(" * 10_000}, "is not valid Python"),
        ({"source": "x = 1\ndef f(): pass"}, "exactly one function"),
        ({"source": "async def f(): pass"}, "is async"),
        ({"source": "@cache\ndef f(): pass"}, "has a decorator"),
        ({"source": "def f(x=OUTSIDE): pass"}, "the default OUTSIDE is no plain value"),
        ({"source": "def f(): global G; G = 1"}, "uses G of its module"),
        ({"source": "def f(*rest): pass"}, "'rest' (*)"),
        ({"source": "def f(**rest): pass"}, "'rest' (**)"),
        ({"source": "def f(x, /): pass"}, "'x' (/)"),
        ({"source": "def f(x: Path): pass"}, "tools[0].source.x: the type Path has no form"),
        ({"source": "def f(x: set[int]): pass"}, "the type set[...] has no form"),
        ({"source": "def f(): pass", "name": "g"}, "must be the function's own name, 'f'"),
        ({"source": "def f(): pass", "pickle": "x"}, "unknown key"),
    ],
)
def test_what_cannot_be_shipped_is_refused_with_the_reason(value: Any, said: str) -> None:
    assert said in faults_of(value)


def test_all_faults_of_a_function_come_at_once() -> None:
    source = "@cache\ndef f(*a, x: Path = y): return z"
    text = faults_of({"source": source})
    for said in ("a decorator", "default y", "uses z", "'a' (*)"):
        assert said in text
    described = {"source": "def f(x: Path): pass", "parameters": {"type": "object"}}
    assert read_function(described, "tools[0]").parameters == {"type": "object"}


def test_tools_share_no_name_and_code_blocks_ask_for_programs_only() -> None:
    base = {"model": "mock/echo", "prompt": "p"}
    twice = {"source": "def files(): pass"}
    with pytest.raises(ConfigError, match=r"tools\[1\]: another tool is called 'files' too"):
        ExperimentConfig.read({**base, "tools": ["files", twice]})
    config = ExperimentConfig.read({**base, "tools": ["bash", multiply, multiply, "bash"]})
    assert len(config.tools) == 2
    with pytest.raises(ConfigError, match="code blocks can only ask for python and bash"):
        ExperimentConfig.read({**base, "tools": ["python", "files"], "tool_format": "code_block"})


async def test_a_model_that_only_writes_code_blocks_needs_a_program() -> None:
    config = {"model": "local/none", "prompt": "p", "tools": ["files"]}
    with pytest.raises(ConfigError, match="which writes code blocks; add python"):
        await ModelRegistry(environ={}).check(ExperimentConfig.read(config))


WAITS = {"source": "def meet(me: str, other: str) -> str:\n    return me", "parallel": True}


async def test_calls_run_side_by_side_only_where_every_tool_says_so(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = most = 0
    real = bench.workplace.run_code

    async def run_code(*args: Any, **kwargs: Any) -> CodeResult:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            return await real(*args, **kwargs)
        finally:
            running -= 1

    monkeypatch.setattr(bench.workplace, "run_code", run_code)
    meet = [("meet", {"me": str(n), "other": ""}) for n in range(3)]
    tools = [WAITS, "python"]
    result = await bench.play(together(*meet), "done", tools=tools)
    assert most == 3
    assert [made.result for made in result.tool_calls] == ["0", "1", "2"]
    told = [message for message in result.messages if message["role"] == "tool"]
    assert [message["content"] for message in told] == ["0", "1", "2"]
    most = 0
    await bench.play(together(*meet, ("python", {"code": "1"})), "done", tools=tools)
    assert most == 1
    # A limit that falls between them is told call by call.
    result = await bench.play(together(*meet), "x", tools=tools, limits={"tool_calls": 2})
    assert [made.error and made.error.type for made in result.tool_calls] == [None, None, "limit"]


async def test_a_sandbox_that_dies_under_calls_side_by_side_is_no_failure_of_the_model(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dying(*args: Any, **kwargs: Any) -> CodeResult:
        bench.workplace.dead = True
        return await PlainWorkplace.run_code(bench.workplace, *args, **kwargs)

    monkeypatch.setattr(bench.workplace, "run_code", dying)
    meet = [("meet", {"me": str(n), "other": ""}) for n in range(3)]
    result = await bench.play(together(*meet), "done", tools=[WAITS])
    assert result.state is AttemptState.INFRA_ERROR
    assert len(result.tool_calls) == 3


async def test_a_model_that_cannot_form_a_call_is_stopped(bench: Bench) -> None:
    bad, good = call("bash", "{not json"), call("bash", {"command": "true"})
    unknown = call("shell", {})
    limits = {"bad_calls": 3}
    result = await bench.play(bad, unknown, bad, "x", tools=["bash"], limits=limits)
    assert result.limit is not None
    assert (result.state, result.limit.type) == (AttemptState.LIMIT, "bad_calls")
    assert len(result.tool_calls) == 3
    mended = [bad, unknown, good, bad, unknown, "done"]
    assert (await bench.play(*mended, tools=["bash"], limits=limits)).status == "success"


async def test_a_model_that_filters_stop_again_and_again_is_stopped(bench: Bench) -> None:
    again = {**call("bash", {"command": "true"}), "finish_reason": "content_filter"}
    result = await bench.play(*[again] * 5, tools=["bash"])
    assert result.limit is not None
    assert (result.limit.type, result.limit.used) == ("content_filter", 3)
    assert result.usage.requests == 3


async def test_the_model_is_offered_every_tool_with_its_schema(
    bench: Bench, server: ScriptedServer
) -> None:
    server.script(says("done"))
    tools = ["python", "bash", "files", multiply]
    await bench.run(model="m", prompt="p", base_url=server.url, tools=tools)
    offered = [tool["function"] for tool in server.bodies[0]["tools"]]
    assert [tool["name"] for tool in offered] == ["python", "bash", "files", "multiply"]
    for tool in offered:
        assert tool["description"]
        assert tool["parameters"]["type"] == "object"


@pytest.mark.parametrize(
    ("value", "schema", "fits"),
    [
        (True, {"type": "integer"}, False),
        (1, {"type": "number"}, True),
        (True, {"type": "number"}, False),
        (True, {"type": "boolean"}, True),
        (None, {"anyOf": [{"type": "string"}, {"type": "null"}]}, True),
        (3, {"anyOf": [{"type": "string"}, {"type": "null"}]}, False),
        ("x", {"enum": ["x", "y"]}, True),
        ("z", {"enum": ["x", "y"]}, False),
        ([1], {"type": "array"}, True),
        ({}, {"type": "array"}, False),
        (object, {}, True),
    ],
)
def test_arguments_are_checked_by_type(value: Any, schema: dict[str, Any], fits: bool) -> None:
    text = json.dumps({"x": None if value is object else value})
    found = parse_arguments(text, "f", {"type": "object", "properties": {"x": schema}})
    assert isinstance(found, dict) == fits
