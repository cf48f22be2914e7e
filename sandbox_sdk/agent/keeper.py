"""The keeper: one process per exchange, between the agent and the guest's program.

It adopts what the program's descendants orphan, so that all of them can be found and killed even
if they double-forked and left the session. It runs no guest code and cannot be traced: it is a
fork of the agent, and non-dumpable like it. Guests may kill it, which ends only that exchange.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Collection, Iterable, Iterator

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
    while kill_once(root, spare) or _end(descendants(root, spare)):
        continue


def kill_once(root: int, spare: Collection[int] = ()) -> bool:
    """Do one round of ``kill_below``; return whether it found any to kill.

    It looks from parents to children, which may miss one whose sibling just ended.
    """
    stopped: set[int] = set()
    before = -1
    while len(stopped) > before:
        before = len(stopped)
        for pid in _below(root, spare):
            if pid not in stopped:
                stop(pid)
                stopped.add(pid)
    _send(stopped, signal.SIGKILL)
    return bool(stopped)


def stop(pid: int) -> None:
    """Stop a process and, at one stroke, the group that it may lead.

    Who stops one after the other waits for its turn among all that a fork bomb runs.
    """
    _send((-pid, pid), signal.SIGSTOP)


def descendants(root: int, spare: Collection[int] = ()) -> set[int]:
    """Return all processes below ``root`` that are not dead, as ``/proc`` shows them now.

    Those to spare, and what is below them, are left out. Every process that ``/proc`` shows is
    looked at, which without a PID namespace are all of the host.
    """
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (parent := _parent(name)):
            children.setdefault(parent, []).append(int(name))
    return set(_walk(root, spare, lambda pid: children.get(pid, [])))


def _below(root: int, spare: Collection[int]) -> Iterable[int]:
    """Find what ``descendants`` does, by the kernel's lists of children where it keeps them.

    The children of a process are looked for after it was given, and so may be stopped by then.
    """
    if not os.path.exists(f"/proc/self/task/{os.getpid()}/children"):
        return descendants(root, spare)
    return _walk(root, spare, lambda pid: [child for child in _children(pid) if _parent(child)])


def _walk(root: int, spare: Collection[int], children: Callable[[int], list[int]]) -> Iterator[int]:
    todo = [root]
    while todo:
        for pid in children(todo.pop()):
            if pid not in spare:
                yield pid
                todo.append(pid)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found += map(int, file.read().split())
    except (FileNotFoundError, ProcessLookupError):
        return found  # ended while we looked: what it had is another's
    return found


def _parent(pid: int | str) -> int:
    """Return the parent of a process; 0 if it is dead, or has none to be seen."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The command's name may hold spaces and brackets; fields start after the last.
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0  # ended while we looked
    return 0 if fields[0] in (b"Z", b"X") else int(fields[1])


def _end(pids: set[int]) -> bool:
    """Kill these; return whether there were any."""
    _send(pids, signal.SIGKILL)
    return bool(pids)


def _send(pids: Iterable[int], number: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
