"""The zygote of level ``low``: it stands on the host itself, and needs no namespace.

Its clones keep nothing apart but by their uid, Landlock and a system call filter; what they do to
themselves is in ``confinement.py``, on one screen. No PID namespace ends what a dead sandbox left
running: orphans of the dead come to the zygote, which kills them.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

from sandbox_sdk.agent import init, keeper, uids, ways, zygote_start
from sandbox_sdk.agent.boot import live_apart, read_plan
from sandbox_sdk.agent.cloned_child import Clone, clone, try_clone
from sandbox_sdk.agent.confinement import DEVICES, Limits, Walls, confine
from sandbox_sdk.agent.launcher import Launcher
from sandbox_sdk.agent.sandbox_child import EMPTY_SECONDS, Child
from sandbox_sdk.isolation.walls import cgroups, kernel


def serve(control: str, template: str) -> None:
    """Serve as the zygote of a template, on the host, until the socket ends.

    Args:
        control: The descriptor of the launcher's socket.
        template: The descriptor of a file with the template, as JSON.
    """
    live_apart()
    plan = read_plan(int(template))
    os.close(int(template))
    zygote_start.serve(
        int(control),
        plan,
        on_host=nullcontext,
        prepare=partial(_prepare, plan),
        become=init.main_plain,
    )


def _prepare(plan: dict[str, Any]) -> Callable[[socket.socket], Launcher]:
    """Open the ways and try a clone out.

    Raises:
        OSError: This host lets no clone be confined.
    """
    passage = plan["trial_uid"]
    if passage:
        ways.open_to(passage, plan["state"], plan["readable"])
    names = [f"/dev/{name}" for name in DEVICES]
    if passage:
        names.append("/dev/pts")  # where a uid of its own keeps the terminals of others shut
    walls = Walls(
        seccomp=plan["seccomp"].encode("latin-1"),
        readable=tuple(plan["readable"]),
        devices=tuple(name for name in names if os.path.exists(name)),
        passage=passage,
    )
    trial = Limits(
        zygote=os.getpid(),
        uid=passage,
        gate=cgroups.Gate(),
        writable=("/",),  # it ends at once
        affinity=list(os.sched_getaffinity(0)),
        rlimits={},
    )
    try_clone(partial(confine, walls, trial), flags=0, uid=0)
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    return partial(PlainZygote, walls)


class PlainZygote(Launcher):
    """A launcher that clones itself into no namespace."""

    def __init__(self, walls: Walls, control: socket.socket) -> None:
        self._walls = walls
        super().__init__(control, "")

    def _begin(self, plan: dict[str, Any], channels: list[int]) -> Child:
        child = PlainChild(plan, self._walls, self._bury)
        try:
            child.start(channels)
        except Exception:
            child.give_back()
            raise
        return child

    def _bury(self) -> bool:
        """Kill and collect what dead sandboxes left behind; return whether nothing is left.

        A live agent adopts its own orphans, so every child that is no agent is of a dead one.
        """
        agents = {child.pid for child in self._children.values()}
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            orphans = set(map(int, file.read().split())) - agents
        left = [pid for pid in orphans if os.waitpid(pid, os.WNOHANG)[0] == 0]
        if left:
            keeper.kill_once(os.getpid(), spare=agents)
        return not left


class PlainChild(Clone):
    """A clone that is told apart from the host's processes by its rights alone."""

    def __init__(self, plan: dict[str, Any], walls: Walls, bury: Callable[[], bool]) -> None:
        """Take what the sandbox needs on the host.

        Args:
            plan: The launcher's request.
            walls: Of all clones.
            bury: Kills what dead sandboxes left, and tells whether nothing of it is left.

        Raises:
            Refused: It would run as root, or no uid is free.
            OSError: The host refused a folder or group.
        """
        self._confines = walls
        self._bury = bury
        super().__init__(plan)

    def _prepare(self) -> None:
        if self.uid:
            ways.let_in(os.path.dirname(self._plan["workspace"]), self._confines.passage)
            uids.give_workspace(self._plan["tmp"], self.uid)
        super()._prepare()

    def start(self, channels: list[int]) -> None:
        """Clone this process; in the clone ``Born`` is raised.

        Raises:
            OSError: The host refused a process.
        """
        plan = self._plan
        limits = Limits(
            zygote=os.getpid(),
            uid=self.uid,
            gate=self._gate,
            writable=(plan["workspace"], plan["tmp"]),
            affinity=plan["affinity"],
            rlimits=plan["rlimits"],
        )
        own = partial(confine, self._confines, limits)
        self.pid, self.pidfd, self._stderr = clone(own, self._gate, channels, flags=0, uid=0)
        self._let_go()

    def removed(self) -> bool:
        """Whether the host is clean again: all its processes gone too."""
        if not self._bury() and time.monotonic() - self._gone_at < EMPTY_SECONDS:
            return False
        return super().removed()
