"""Judges hostile text in kept processes, each ended when it takes too long.

Python's ``re`` cannot be interrupted and holds the interpreter, so neither a thread nor a timeout
around it bounds it. A process can be ended, and one that is kept answers in a tenth of a
millisecond.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import anyio.to_thread

CHECK_SECONDS = 5.0
"""Longest time that one check may take, by default."""

_KEPT = 2  # idle processes; more are ended after use
_LONGEST_ANSWER = 256 * 1024 * 1024

PROGRAM = "import sys; sys.path.append(sys.argv[1]); from checks.serve import main; main()"
"""What a process runs, in isolated mode: neither environment nor current folder are looked at."""


class CheckFailed(Exception):
    """A check came to no end: it took too long, or too much memory. Scorers catch it."""


class Checker:
    """Runs checks. It belongs to no event loop, and its processes end with it."""

    def __init__(self) -> None:
        self._idle: list[_Process] = []
        self._lock = threading.Lock()  # guards _idle
        weakref.finalize(self, _end_all, self._idle, os.getpid())

    async def run(self, do: str, *, seconds: float = CHECK_SECONDS, **given: Any) -> dict[str, Any]:
        """Return what a check of ``checks.serve`` answers.

        Args:
            do: Its name.
            seconds: Longest time it may take.
            given: Its arguments.

        Raises:
            CheckFailed: It took too long, or ended without an answer.
        """
        line = json.dumps({"do": do, "seconds": seconds, **given}).encode("ascii") + b"\n"
        # Abandoned on cancellation: the thread ends within ``seconds`` by itself.
        return await anyio.to_thread.run_sync(self._run, line, seconds, abandon_on_cancel=True)

    def _run(self, line: bytes, seconds: float) -> dict[str, Any]:
        with self._lock:
            process = self._idle.pop() if self._idle else None
        process = process or _Process()
        try:
            answer = process.ask(line, seconds)
        except BaseException:
            process.end()
            raise
        with self._lock:
            keep = len(self._idle) < _KEPT
            if keep:
                self._idle.append(process)
        if not keep:
            process.end()
        if "failed" in answer:
            raise CheckFailed(f"the check failed: {answer['failed']}")
        return answer


class _Process:
    """One process that answers a line with a line."""

    def __init__(self) -> None:
        self._popen = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", PROGRAM, str(Path(__file__).parent)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={},
        )
        if self._popen.stdin is None or self._popen.stdout is None:
            raise AssertionError("unreachable: both are pipes")
        self._input, self._output = self._popen.stdin.fileno(), self._popen.stdout.fileno()
        os.set_blocking(self._input, False)
        os.set_blocking(self._output, False)

    def ask(self, line: bytes, seconds: float) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        unsent, answer = memoryview(line), bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(self._output, selectors.EVENT_READ)
            selector.register(self._input, selectors.EVENT_WRITE)
            while not answer.endswith(b"\n"):
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                if not ready:
                    raise CheckFailed(
                        f"the check took longer than {seconds:g} s and was ended; make the "
                        "pattern simpler: nested repeats such as (a+)+ are the usual cause"
                    )
                for key, _ in ready:
                    if key.fd == self._input:
                        unsent = unsent[self._send(unsent) :]
                        if not unsent:
                            selector.unregister(self._input)
                    else:
                        answer += self._receive()
                        if len(answer) > _LONGEST_ANSWER:
                            raise CheckFailed("the check gave an answer without end")
        found: dict[str, Any] = json.loads(answer)
        return found

    def _send(self, data: memoryview) -> int:
        try:
            return os.write(self._input, data)
        except BrokenPipeError:
            raise self._died() from None

    def _receive(self) -> bytes:
        data = os.read(self._output, 1 << 20)
        if not data:
            raise self._died()
        return data

    def _died(self) -> CheckFailed:
        return CheckFailed(f"the check's process ended by itself (code {self._popen.wait()})")

    def end(self) -> None:
        self._popen.kill()
        self._popen.wait()
        for pipe in (self._popen.stdin, self._popen.stdout):
            if pipe is not None:
                pipe.close()


def _end_all(idle: list[_Process], owner_pid: int) -> None:
    # A forked child runs its parent's finalizers; the processes are not its own.
    while idle and os.getpid() == owner_pid:
        idle.pop().end()


_shared: dict[int, Checker] = {}


def shared_checker() -> Checker:
    """Return this process's checker, made on first use; a forked child makes its own."""
    known = _shared.get(os.getpid())
    return known or _shared.setdefault(os.getpid(), Checker())
