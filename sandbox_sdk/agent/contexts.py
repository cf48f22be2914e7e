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
        os._exit(serve(os.fdopen(code, "rb"), results))

    return run


def make_importable(packages: list[str]) -> None:
    """Make the packages of these folders importable, as site-packages are, once."""
    for folder in packages:
        if folder not in _IMPORTABLE:
            site.addsitedir(folder)
            _IMPORTABLE.add(folder)


def serve(code: BinaryIO, results: int) -> int:
    """Run pieces of code until the host ends the stream; return the exit code.

    Args:
        code: Where each piece comes as a line of JSON.
        results: The descriptor to answer on.
    """
    module = ModuleType("__main__")
    sys.modules["__main__"] = module
    sys.argv = [""]
    sys.path[0] = ""  # was the agent's own folder
    site.setquit()  # as any Python has them; ours runs without site
    site.sethelper()
    # Left-over state of the agent that guest code would trip over or see. It is kept alive, for
    # to free it would touch, and so copy, every page that it lies on.
    kept = [sys.modules.pop(name) for name in list(sys.modules) if name.startswith("sandbox_sdk")]
    gc.enable()
    _line_buffered()
    shown = displays.Displays()
    builtins.display = shown.display  # type: ignore[attr-defined]  # as notebooks have it
    with code as pieces:
        for number, line in enumerate(pieces, 1):
            answer = _run(json.loads(line)["code"], number, module.__dict__, shown)
            _flush()
            error = answer.get("error")
            texts = [*answer["results"], error] if error else answer["results"]
            answers.write_all(results, answers.encode_answer(answer, texts))
            if "exit" in answer:
                return int(answer["exit"])
    del kept
    return 0


def _run(
    source: str, number: int, names: dict[str, Any], shown: displays.Displays
) -> dict[str, Any]:
    """Run one piece and return the answer.

    ``value`` in it says that the last of its results is the value of the last expression;
    ``exit`` is the code that it asked to exit with.
    """
    name = f"<code {number}>"
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)
    answer: dict[str, Any] = {}
    described = None
    try:
        body, last = _split(source, name)
        exec(body, names)  # noqa: S102 - running guest code is what this process is for
        value = None if last is None else eval(last, names)  # noqa: S307
        if value is not None:
            described = shown.describe(value)
    except SystemExit as exit_:
        answer["exit"] = _exit_code(exit_.code)
    except BaseException as error:  # noqa: BLE001 - whatever guest code raises is its result
        answer["error"] = _describe(error)
    answer["results"], omitted = shown.take()
    if described is not None:
        answer["results"].append(described)
        answer["value"] = True
    if omitted:
        answer["omitted"] = omitted
    return answer


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
