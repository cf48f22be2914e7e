"""The default Python context, forked before anything is asked for, with a socket of its own.

The host speaks to it without a hop through PID 1: the first line on the socket is the settings of
the sandbox, every further one a piece of code, answered as by any context. Its output streams are
pipes, whose read ends PID 1 hands to the host on that socket before any guest code runs.
"""

from __future__ import annotations

import array
import os
import signal
import socket
from typing import Any

from sandbox_sdk.agent import contexts, guest, keeper

SOCKET = 4
"""The descriptor on which the agent finds the context's socket."""


class Ahead:
    """The context as PID 1 holds it.

    What it leaves orphaned comes to PID 1 itself, for no keeper stands between them.

    Attributes:
        number: The host's number for it, once it was asked for; 0 before.
        child: The process; 0 once it was reaped.
        ended: How it ended, once it did.
    """

    def __init__(self, packages: list[str]) -> None:
        """Fork it.

        Args:
            packages: Folders with packages to make importable.

        Raises:
            OSError: No process or descriptor is left.
        """
        self.number = 0
        self.ended: dict[str, Any] | None = None
        self._killer = 0
        self._agent = os.getpid()
        pipes = [os.pipe(), os.pipe()]
        self.child = os.fork()
        if self.child == 0:
            try:
                _serve(packages, [write for _, write in pipes])
            finally:
                os._exit(70)  # an exception in a child must not unwind into the agent
        with socket.socket(fileno=SOCKET) as channel:
            rights = array.array("i", [read for read, _ in pipes])
            channel.sendmsg([b"\n"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        for pair in pipes:
            for descriptor in pair:
                os.close(descriptor)

    def child_ended(self, pid: int, status: int, cpu_seconds: float) -> bool:
        """Note that a child of PID 1 was reaped; return whether it was one of these."""
        if pid == self.child:
            self.child = 0
            self.ended = {**keeper.ended(status), "cpu_seconds": cpu_seconds}
        elif pid == self._killer:
            self._killer = 0
            self.signal(signal.SIGKILL)  # should guests have killed the killer
        else:
            return False
        return True

    def signal(self, number: int) -> None:
        """Send a signal to the context, if it still runs."""
        if self.child:
            os.kill(self.child, number)

    def kill(self, others: list[int]) -> None:
        """End the context, all its descendants, and what they orphaned.

        Args:
            others: The children of PID 1 that are not of this context.
        """
        if not self.child or self._killer:
            return
        try:
            self._killer = os.fork()
        except OSError:  # out of processes: then PID 1 itself does it
            keeper.kill_below(self._agent, spare=others)
            return
        if self._killer == 0:
            try:
                keeper.kill_below(self._agent, spare={*others, os.getpid()})
            finally:
                os._exit(0)

    @property
    def finished(self) -> bool:
        """Whether the context ended, and whatever a kill was to end with it."""
        return self.number > 0 and self.ended is not None and not self._killer


def _serve(packages: list[str], outputs: list[int]) -> None:
    """Become the guest as far as no setting is needed, then wait for the settings."""
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    for target, descriptor in enumerate(outputs, 1):
        os.dup2(descriptor, target)
    guest.leave_agent([SOCKET])
    os.setpgid(0, 0)
    contexts.make_importable(packages)
    context = contexts.Context(SOCKET)
    context.exercise()
    lines = os.fdopen(SOCKET, "rb")
    settings = lines.readline()
    if settings:
        guest.take_settings(guest.Settings.parse(settings))
        os._exit(context.serve(lines))
    os._exit(0)
