"""The scorer that is a Python function: its source is sent into a sandbox and called there.

Nothing is pickled, and nothing of this process goes along: a function that uses more than its
arguments, builtins and what it imports itself is refused when it is given, not when it fails.
"""

from __future__ import annotations
import __future__

import ast
import base64
import builtins
import inspect
import json
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import attrs

from sandbox_sdk.experiments import fields
from sandbox_sdk.experiments.scorers import sandboxed
from sandbox_sdk.experiments.scorers.answers import score_of
from sandbox_sdk.experiments.scorers.base import (
    Graders,
    SandboxMaker,
    Score,
    Submission,
    scorer_digest,
    unscored,
)
from sandbox_sdk.parse import Faults, fault
from sandbox_sdk.values import Sample

ARGUMENTS = ("output", "target", "sample", "artifacts", "messages")
"""What a function may ask for, by the names of its parameters."""

_RUNNER = (Path(__file__).parent / "inside" / "function_runner.py").read_text("utf-8")
_FUTURE = __future__.annotations.compiler_flag  # annotations are not looked up


@attrs.frozen(kw_only=True)
class Source:
    """A function as text that stands for itself.

    Attributes:
        text: A module that defines it.
        entry: Its name.
        arguments: The names of its parameters.
    """

    text: str = attrs.field(repr=False)
    entry: str
    arguments: tuple[str, ...]


def source_of(function: Callable[..., object], path: str) -> Source:
    """Return the source of a function that can stand for itself.

    Raises:
        ConfigError: It cannot: it is a lambda, a method, a closure, or uses names of its module.
    """
    if not isinstance(function, FunctionType) or function.__name__ == "<lambda>":
        raise fault(path, "must be a function that was written with def, to be sent as its source")
    if function.__code__.co_freevars:
        names = ", ".join(function.__code__.co_freevars)
        raise fault(path, f"{function.__name__}() is a closure over {names}: make them literals")
    try:
        text = textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError):
        raise fault(
            path,
            f"the source of {function.__name__}() cannot be found: write it in a file, or give it "
            'as {"type": "function", "source": "..."}',
        ) from None
    return read_source(text, path)


def read_source(value: object, path: str) -> Source:
    """Return a function as its source; of a text, the last one at its top level.

    Raises:
        ConfigError: There is none that can stand for itself; all faults at once.
    """
    if callable(value):
        return source_of(value, path)
    text = fields.filled_text(value, path)
    try:
        tree = ast.parse(text)
        code = compile(text, "<scorer>", "exec", flags=_FUTURE, dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise fault(path, f"is no Python: {error}") from None
    defined = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    if not defined:
        raise fault(path, "must define a function with def")
    entry = defined[-1]
    faults = Faults()
    if entry.decorator_list:
        faults.add(path, f"{entry.name}() has decorators, which would not be sent with it")
    given = entry.args
    arguments = tuple(arg.arg for arg in (*given.args, *given.kwonlyargs))
    if given.posonlyargs or given.vararg or given.kwarg or not set(arguments) <= set(ARGUMENTS):
        known = ", ".join(ARGUMENTS)
        faults.add(path, f"{entry.name}() may take, by name: {known}")
    if not arguments:
        faults.add(path, f"{entry.name}() takes nothing, so it has nothing to judge")
    if foreign := sorted(_foreign(code)):
        names = ", ".join(foreign)
        faults.add(path, f"{entry.name}() uses {names} of outside: import or define it inside")
    faults.check()
    return Source(text=text, entry=entry.name, arguments=arguments)


# The last is Python 3.12's, in the body of a class.
_READS = frozenset({"LOAD_NAME", "LOAD_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS"})
_WRITES = frozenset({"STORE_NAME", "STORE_GLOBAL"})


def _foreign(code: CodeType) -> set[str]:
    """Return the global names that a module's code reads and nobody defines."""
    used: set[str] = set()
    made: set[str] = {"__name__"}
    waiting = [code]
    while waiting:
        current = waiting.pop()
        for name, operation in _instructions(current):
            if operation in _READS:
                used.add(name)
            elif operation in _WRITES:
                made.add(name)
        waiting += [constant for constant in current.co_consts if isinstance(constant, CodeType)]
    return used - made - set(dir(builtins))


def _instructions(code: CodeType) -> list[tuple[str, str]]:
    import dis  # on use: only a function needs it

    return [(str(item.argval), item.opname) for item in dis.get_instructions(code)]


READERS: Mapping[str, fields.Reader] = {
    "source": read_source,
    "timeout": fields.number(0, 10**5, above=True),
    "sandbox": sandboxed.read_sandbox,
}
"""The fields of ``function``."""


def faults_of(found: Mapping[str, Any], path: str) -> Faults:
    """Return the faults of fields that do not go together."""
    faults = Faults()
    if "source" not in found:
        faults.add(f"{path}.source", "is required: a function, or its text")
    return faults


@attrs.frozen(kw_only=True)
class FunctionScorer:
    """Calls a function with the submission, in a fresh sandbox that holds nothing else.

    The submission is data to it, and is not run.

    Attributes:
        name: Its name.
        source: The function.
        timeout: Seconds of one call, on the host's clock.
        sandbox: Settings of its sandbox, by ``create_sandbox``'s names.
    """

    name: str
    source: Source
    timeout: float = 30.0
    sandbox: Mapping[str, Any] = attrs.field(factory=dict[str, Any])
    needs_sandbox: bool = attrs.field(default=True, init=False)
    model: None = attrs.field(default=None, init=False)

    @property
    def digest(self) -> str:
        """SHA-256 of its version and settings, the source among them."""
        settings = attrs.asdict(self, filter=lambda field, _: field.init and field.name != "name")
        return scorer_digest("function", 1, **settings)

    def check(self, sample: Sample, path: str) -> None:
        """Go on: the function decides what it needs."""

    async def score(
        self,
        submission: Submission,
        *,
        sandboxes: SandboxMaker | None = None,
        models: Graders | None = None,
    ) -> Score:
        """Return what the function returns; one that raises or hits a limit scores nothing.

        Raises:
            SandboxError: The sandbox could not be had, or died.
        """
        call = {
            "source": self.source.text,
            "entry": self.source.entry,
            "arguments": _arguments(submission, self.source.arguments),
        }
        stdin = json.dumps(call).encode("ascii")
        async with sandboxed.fresh(sandboxes, {}, self.sandbox) as sandbox:
            result = await sandboxed.run(
                sandbox, ("python", "-I", "-c", _RUNNER), stdin=stdin, timeout=self.timeout
            )
        said = f"{result.ended}\n{result.stderr}".strip()
        if sandboxed.label_of(result) is not None:
            return unscored(self, f"the function came to no verdict: {said}")
        try:
            value: object = json.loads(result.stdout)["value"]
        except (ValueError, LookupError, TypeError, RecursionError):
            return unscored(self, f"the function gave nothing that can be read: {said}")
        return score_of(self, value, said)


def _arguments(submission: Submission, names: tuple[str, ...]) -> dict[str, Any]:
    sample = submission.sample
    given: dict[str, Any] = {
        "output": submission.output,
        "target": sample.target,
        "sample": {
            "id": sample.id,
            "prompt": sample.prompt,
            "target": sample.target,
            "metadata": sample.metadata,
        },
        "artifacts": {
            path: base64.b64encode(data).decode() for path, data in submission.artifacts.items()
        },
        "messages": list(submission.messages),
    }
    return {name: given[name] for name in names}
