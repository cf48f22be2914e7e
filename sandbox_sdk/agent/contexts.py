"""Guest programs: a Python context, which runs pieces of code in one ``__main__``.

The host writes each piece as a line of JSON to standard input's stream and reads an answer per
piece from the result stream: what it displayed, the value of its last expression, the exception.
Everything that this process sends is the guest's word.
"""

from __future__ import annotations

import ast
import builtins
import gc
import json
import linecache
import os
import site
import sys
import traceback
from collections.abc import Callable
from types import CodeType, ModuleType
from typing import Any, BinaryIO, Literal, TextIO

from sandbox_sdk.agent import answers, displays, frames, guest
from sandbox_sdk.agent.displays import cut

_LONGEST_ERROR = 64 * 1024
"""Longest message or traceback; the middle of a longer one is cut out, and said."""

_IMPORTABLE: set[str] = set()
"""Folders that are importable already, perhaps since before this process was forked."""

_OURS = frozenset({__file__, displays.__file__})


def program(
    request: dict[str, Any], settings: guest.Settings, streams: list[int]
) -> Callable[[], None]:
    """Return what the guest process of a Python context does."""

    def run() -> None:
        code, results = os.dup(streams[frames.STDIN]), os.dup(streams[frames.RESULT])
        null = os.open("/dev/null", os.O_RDONLY)
        for target, descriptor in enumerate([null, streams[1], streams[2]]):
            os.dup2(descriptor, target)
        guest.leave_agent(keep=[code, results])
        os.setpgid(0, 0)
        guest.take_settings(settings)
        make_importable(settings.site)
        os._exit(Context(results).serve(os.fdopen(code, "rb")))

    return run


def make_importable(packages: list[str]) -> None:
    """Make the packages of these folders importable, as site-packages are, once."""
    for folder in packages:
        if folder not in _IMPORTABLE:
            site.addsitedir(folder)
            _IMPORTABLE.add(folder)


class Context:
    """One ``__main__``, and what runs pieces of code in it."""

    def __init__(self, results: int) -> None:
        """Make this process, which has left the agent, one that runs Python code.

        Args:
            results: The descriptor to answer on.
        """
        self._results = results
        self._shown = displays.Displays()
        module = ModuleType("__main__")
        self._names = module.__dict__
        sys.modules["__main__"] = module
        sys.argv = [""]
        sys.path[0] = ""  # was the agent's own folder
        site.setquit()  # as any Python has them; ours runs without site
        site.sethelper()
        # Left-over state of the agent that guest code would trip over or see. It is kept alive,
        # for to free it would touch, and so copy, every page that it lies on.
        ours = [name for name in sys.modules if name.startswith("sandbox_sdk")]
        self._kept = [sys.modules.pop(name) for name in ours]
        gc.enable()
        _line_buffered()
        builtins.display = self._shown.display  # type: ignore[attr-defined]  # as in notebooks

    def exercise(self) -> None:
        """Run a piece without effect, so that what running takes is this process's own memory."""
        self._answer(0, b'{"code": "0"}')
        del linecache.cache[_name(0)]

    def serve(self, code: BinaryIO) -> int:
        """Run pieces of code until the host ends the stream; return the exit code.

        Args:
            code: Where each piece comes as a line of JSON.
        """
        with code as pieces:
            for number, line in enumerate(pieces, 1):
                text, exit_code = self._answer(number, line)
                answers.write_all(self._results, text)
                if exit_code is not None:
                    return exit_code
        return 0

    def _answer(self, number: int, line: bytes) -> tuple[bytes, int | None]:
        """Run one piece; return the lines that answer it, and the code that it asked to exit with.

        ``value`` in the answer says that the last of its results is the value of the last
        expression.
        """
        answer = self._run(json.loads(line)["code"], _name(number))
        _flush()
        error = answer.get("error")
        texts = [*answer["results"], error] if error else answer["results"]
        return answers.encode_answer(answer, texts), answer.get("exit")

    def _run(self, source: str, name: str) -> dict[str, Any]:
        linecache.cache[name] = (len(source), None, source.splitlines(True), name)
        answer: dict[str, Any] = {}
        described = None
        try:
            body, last = _split(source, name)
            exec(body, self._names)  # noqa: S102 - running guest code is what this process is for
            value = None if last is None else eval(last, self._names)  # noqa: S307
            if value is not None:
                described = self._shown.describe(value)
        except SystemExit as exit_:
            answer["exit"] = _exit_code(exit_.code)
        except BaseException as error:  # noqa: BLE001 - whatever guest code raises is its result
            answer["error"] = _describe(error)
        answer["results"], omitted = self._shown.take()
        if described is not None:
            answer["results"].append(described)
            answer["value"] = True
        if omitted:
            answer["omitted"] = omitted
        return answer


def _name(number: int) -> str:
    """The file name of a piece, as tracebacks show it."""
    return f"<code {number}>"


def _split(source: str, name: str) -> tuple[CodeType, CodeType | None]:
    """Compile the code, and its last statement apart if that is an expression."""
    tree = ast.parse(source, name)
    last = None
    if tree.body and isinstance(shown := tree.body[-1], ast.Expr):
        tree.body.pop()
        last = compile(ast.Expression(shown.value), name, "eval")
    return compile(tree, name, "exec"), last


def _describe(error: BaseException) -> dict[str, str]:
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename in _OURS:
        trace = trace.tb_next
    lines = traceback.format_exception(type(error), error, trace)
    try:
        message = str(error)
    except Exception as failure:  # noqa: BLE001 - guest code again
        message = f"<str() of the exception raised {type(failure).__name__}>"
    return {
        "name": type(error).__name__,
        "message": cut(message, _LONGEST_ERROR),
        "traceback": cut("".join(lines), _LONGEST_ERROR),
    }


def _exit_code(code: object) -> int:
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    sys.stderr.write(f"{code}\n")
    return 1


def _line_buffered() -> None:
    """Fresh text streams over descriptors 0 to 2: the agent's may hold its own state."""
    sys.stdin = _text(0, "r")
    sys.stdout, sys.stderr = _text(1, "w"), _text(2, "w")


def _text(descriptor: int, mode: Literal["r", "w"]) -> TextIO:
    return open(descriptor, mode, buffering=1, encoding="utf-8", errors="replace", closefd=False)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            continue  # guest code closed or replaced it
