"""How a guest program is started: its streams are opened, then its process is forked."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

from sandbox_sdk.agent import (
    commands,
    contexts,
    file_ops,
    frames,
    guest,
    keeper,
    terminals,
)

_OUTPUTS = (frames.STDOUT, frames.STDERR, frames.RESULT)
_NONE = -1
_PROGRAMS = {"command": commands, "python": contexts, "file": file_ops}


class Started(NamedTuple):
    """A program that was started, and the agent's ends of its streams; none of them blocks.

    Attributes:
        child: The agent's own child: the keeper, or the process of a file operation.
        report: Where the keeper tells how the program ended.
        stdin: The program's standard input.
        outputs: Stream -> what the program writes there; -1 where it has no such stream.
    """

    child: int
    report: int
    stdin: int
    outputs: dict[int, int]


def start(request: dict[str, Any], settings: guest.Settings) -> Started:
    """Start what a request asks for.

    Raises:
        OSError: No process, terminal or descriptor is left; nothing is left open then.
        KeyError: The request is not one the agent knows.
    """
    make = _PROGRAMS[request["kind"]].program
    opened: list[int] = []
    try:
        if "terminal" in request:
            ours, terminal = terminals.open_pair(request["terminal"], opened)
            ours, theirs = [*ours, _NONE, _NONE], [terminal]
        else:
            ours, theirs = _pipes(opened)
        report, report_end = _pipe(opened)
        program = make(request, settings, theirs)
        if request["kind"] != "file":
            program = _kept(program, report_end, theirs)
        child = _fork(program)
    except OSError:
        for descriptor in opened:
            os.close(descriptor)
        raise
    for descriptor in [*theirs, report_end]:
        os.close(descriptor)
    for descriptor in [*ours, report]:
        if descriptor != _NONE:
            os.set_blocking(descriptor, False)
    outputs = {stream: ours[stream] for stream in _OUTPUTS}
    return Started(child, report, ours[frames.STDIN], outputs)


def _pipe(opened: list[int]) -> tuple[int, int]:
    """Open a pipe, and note its ends in ``opened``."""
    ends = os.pipe()
    opened.extend(ends)
    return ends


def _pipes(opened: list[int]) -> tuple[list[int], list[int]]:
    """Return the agent's ends and the guest's ends of the four streams."""
    read, write = _pipe(opened)
    ours, theirs = [write], [read]
    for _ in _OUTPUTS:
        read, write = _pipe(opened)
        ours.append(read)
        theirs.append(write)
    return ours, theirs


def _kept(program: Callable[[], None], report: int, streams: list[int]) -> Callable[[], None]:
    def run() -> None:
        guest.close_all_but([report, *streams])
        keeper.run(program, report, streams)

    return run


def _fork(run: Callable[[], None]) -> int:
    child = os.fork()
    if child:
        return child
    try:
        run()
        os._exit(0)
    finally:
        os._exit(70)  # an exception in a child must not unwind into the agent's loop
