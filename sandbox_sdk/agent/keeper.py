"""The keeper: one process per exchange, between the agent and the guest's program.

It adopts what the program's descendants orphan, so that all of them can be found and killed even
if they double-forked and left the session. It runs no guest code and cannot be traced: it is a
fork of the agent, and non-dumpable like it. Guests may kill it, which ends only that exchange.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Collection

from sandbox_sdk.isolation.walls import kernel


def run(program: Callable[[], None], report: int, streams: list[int]) -> None:
    """Fork ``program`` as the guest, wait for its end and write it to ``report`` as JSON.

    Where no process is left for it, this one becomes the guest itself, unkept.

    Args:
        program: What the guest does; it must not return.
        report: Descriptor that only the keeper holds.
        streams: Descriptors of the guest's streams, which the keeper gives away.
    """
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    # Blocked from before the fork, so that a kill that comes early is not lost.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGCHLD})
    try:
        guest = os.fork()
    except OSError:
        guest = 0
    if guest == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGCHLD})
        program()
    for descriptor in streams:
        os.close(descriptor)
    os.write(report, json.dumps({"pid": guest}).encode() + b"\n")
    os.write(report, json.dumps(_wait(guest)).encode() + b"\n")


def _wait(guest: int) -> dict[str, float]:
    """Reap until the guest ended; kill everything below when the agent says so."""
    while True:
        if signal.sigwait({signal.SIGTERM, signal.SIGCHLD}) == signal.SIGTERM:
            kill_below(os.getpid())
        how: dict[str, float] = {}
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if pid == guest:
                how = ended(status)
                how["cpu_seconds"] = usage.ru_utime + usage.ru_stime
        if how:
            return how


def ended(status: int) -> dict[str, float]:
    """Return a wait status as ``signal`` or ``exit_code``."""
    if os.WIFSIGNALED(status):
        return {"signal": os.WTERMSIG(status)}
    return {"exit_code": os.WEXITSTATUS(status)}


def kill_below(root: int, spare: Collection[int] = ()) -> None:
    """Kill every descendant of ``root``, but those to spare and what is below them.

    All are stopped before any is killed: a stopped process cannot fork, so a fork bomb runs out
    of forkers instead of racing the kills. Looking again until none is left finds what was being
    forked while its parent was stopped.
    """
    while descendants(root, spare):
        stopped: set[int] = set()
        while fresh := descendants(root, spare) - stopped:
            _send(fresh, signal.SIGSTOP)
            stopped |= fresh
        _send(stopped, signal.SIGKILL)


def descendants(root: int, spare: Collection[int] = ()) -> set[int]:
    """Return all processes below ``root`` that are not dead, as ``/proc`` shows them now.

    Those to spare, and what is below them, are left out.
    """
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                # The command's name may hold spaces and brackets; fields start after the last.
                fields = file.read().rpartition(b")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended while we looked
        if fields[0] not in (b"Z", b"X"):
            children.setdefault(int(fields[1]), []).append(int(name))
    found: set[int] = set()
    todo = [root]
    while todo:
        below = [pid for pid in children.get(todo.pop(), []) if pid not in spare]
        found.update(below)
        todo.extend(below)
    return found


def _send(pids: set[int], number: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
