"""Guest programs: a Python context, which runs pieces of code in one ``__main__``.

The host writes each piece as a line of JSON to standard input's stream and reads a line of JSON
per piece from the result stream: the value of its last expression, or the exception. Everything
that this process sends is the guest's word.
"""

from __future__ import annotations

import ast
import json
import linecache
import os
import signal
import site
import sys
import traceback
from collections.abc import Callable
from types import CodeType, ModuleType
from typing import Any, Literal, TextIO

from sandbox_sdk.agent import frames, guest

_LONGEST_TEXT = 256 * 1024
"""Longest text of a value or traceback; the middle of a longer one is cut out, and said."""


def program(
    request: dict[str, Any], settings: guest.Settings, streams: list[int]
) -> Callable[[], None]:
    """Return what the guest process of a Python context does."""

    def run() -> None:
        code, results = os.dup(streams[frames.STDIN]), os.dup(streams[frames.RESULT])
        null = os.open("/dev/null", os.O_RDONLY)
        for target, descriptor in enumerate([null, streams[1], streams[2]]):
            os.dup2(descriptor, target)
        guest.become(settings, keep=[code, results])
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.setsid()
        os.chdir(settings.workspace)
        os.environ.clear()
        os.environ.update(settings.env)
        os._exit(_serve(code, results, settings.site))

    return run


def _serve(code: int, results: int, packages: list[str]) -> int:
    """Run pieces of code until the host ends the stream; return the exit code."""
    module = ModuleType("__main__")
    sys.modules["__main__"] = module
    sys.argv = [""]
    sys.path[0] = ""  # was the agent's own folder
    for folder in packages:
        site.addsitedir(folder)
    site.setquit()  # as any Python has them; ours runs without site
    site.sethelper()
    # Left-over state of the agent that guest code would trip over or see.
    for name in [name for name in sys.modules if name.startswith("sandbox_sdk")]:
        del sys.modules[name]
    _line_buffered()
    with os.fdopen(code, "rb") as pieces, os.fdopen(results, "wb", buffering=0) as out:
        for number, line in enumerate(pieces, 1):
            reply = _run(json.loads(line)["code"], number, module.__dict__)
            _flush()
            out.write(json.dumps(reply).encode() + b"\n")
            if "exit" in reply:
                return int(reply["exit"])
    return 0


def _run(source: str, number: int, names: dict[str, Any]) -> dict[str, Any]:
    """Run one piece and return the reply; ``exit`` in it is the code it asked to exit with."""
    name = f"<code {number}>"
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)
    try:
        body, last = _split(source, name)
        exec(body, names)  # noqa: S102 - running guest code is what this process is for
        value = None if last is None else eval(last, names)  # noqa: S307
        if value is None:
            return {"results": []}
        return {"results": [{"text/plain": _cut(repr(value))}]}
    except SystemExit as exit_:
        return {"results": [], "exit": _exit_code(exit_.code)}
    except BaseException as error:  # noqa: BLE001 - whatever guest code raises is its result
        return {"results": [], "error": _describe(error)}


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
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    lines = traceback.format_exception(type(error), error, trace)
    try:
        message = str(error)
    except Exception as failure:  # noqa: BLE001 - guest code again
        message = f"<str() of the exception raised {type(failure).__name__}>"
    return {
        "name": type(error).__name__,
        "message": _cut(message),
        "traceback": _cut("".join(lines)),
    }


def _exit_code(code: object) -> int:
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    sys.stderr.write(f"{code}\n")
    return 1


def _cut(text: str) -> str:
    lost = len(text) - _LONGEST_TEXT
    if lost <= 0:
        return text
    half = _LONGEST_TEXT // 2
    return f"{text[:half]}\n... {lost} characters left out ...\n{text[-half:]}"


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
