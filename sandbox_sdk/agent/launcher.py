"""The launcher: one exec'ed, single-threaded process per client that starts its sandboxes.

It speaks JSON over a SEQPACKET socket, descriptors alongside. So threads, event loops and big
parents on the user's side do not matter, and neither does how that side ends: at the end of the
socket, or of the owner, the launcher kills its sandboxes, removes what they had on the host, and
exits.

Requests are ``launch`` and ``kill``; answers are ``ready``, ``started``, ``ended``.
"""

from __future__ import annotations

import array
import json
import os
import selectors
import socket
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from sandbox_sdk.agent.boot import live_apart
from sandbox_sdk.agent.sandbox_child import Child, Stage

_LARGEST = 256 * 1024
_MOST_CHANNELS = 2
_RETRY_SECONDS = 0.005
_IDLE_SECONDS = 0.01  # without a request, before something is prepared
_PATIENCE_SECONDS = 5.0


def main(control: str, stage_folder: str) -> None:
    """Serve the socket to its end.

    Args:
        control: The descriptor of the socket.
        stage_folder: Where, as root, folders are shown under paths that a dropped uid can reach;
            empty for none.
    """
    live_apart()
    Launcher(socket.socket(fileno=int(control)), stage_folder).serve()


class Launcher:
    """The loop of the launcher."""

    def __init__(self, control: socket.socket, stage_folder: str) -> None:
        self._control = control
        self._stage = Stage(stage_folder) if stage_folder else None
        self._received = bytearray(_LARGEST)  # once, for it is large
        self._children: dict[str, Child] = {}
        self._leaving: dict[str, tuple[Child, int]] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ, self._request)
        # A fork of the owner keeps the socket open; only its pidfd tells that the owner is gone.
        owner = os.getppid()
        self._owner = os.pidfd_open(owner)
        self._selector.register(self._owner, selectors.EVENT_READ, self._owner_died)
        self._serving = os.getppid() == owner

    def serve(self) -> None:
        """Serve until the socket or the owner ends, then take every sandbox along."""
        self._say({"say": "ready", "pid": os.getpid()})
        while self._serving:
            if not self._turn(self._patience()) and self._wants_idle():
                self._idle()
        for child in self._children.values():
            child.kill()
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while (self._children or self._leaving) and time.monotonic() < deadline:
            self._turn(_RETRY_SECONDS)

    def _patience(self) -> float | None:
        """How long to wait for a request, in seconds; ``None`` is for ever."""
        if self._leaving:
            return _RETRY_SECONDS
        return _IDLE_SECONDS if self._wants_idle() else None

    def _turn(self, timeout: float | None) -> bool:
        """Do what is asked for within a time, in seconds; return whether anything was."""
        asked = self._selector.select(timeout)
        for key, _ in asked:
            key.data()
        for name, (child, status) in list(self._leaving.items()):
            with self._host():
                removed = child.removed()
            if removed:
                del self._leaving[name]
                self._say(
                    {
                        "say": "ended",
                        "id": name,
                        "status": status,
                        "stderr": child.last_words(),
                        "counted": child.counted._asdict(),
                    }
                )
        return bool(asked)

    def _wants_idle(self) -> bool:
        """Whether there is something to prepare while nothing is asked for."""
        return False

    def _idle(self) -> None:
        """Prepare something."""

    def _host(self) -> AbstractContextManager[None]:
        """See the host, where this process does not see it anyway."""
        return nullcontext()

    def _request(self) -> None:
        descriptors = array.array("i")
        try:
            size, ancillary, _, _ = self._control.recvmsg_into(
                [self._received], socket.CMSG_SPACE(4 * _MOST_CHANNELS)
            )
        except ConnectionError:
            size, ancillary = 0, []
        for _, _, payload in ancillary:
            descriptors.frombytes(payload)
        if not size:
            self._selector.unregister(self._control)
            self._serving = False
            return
        said = json.loads(self._received[:size])
        if said["do"] == "launch":
            self._launch(said, list(descriptors))
        elif child := self._children.get(said["id"]):
            child.kill()

    def _launch(self, plan: dict[str, Any], channels: list[int]) -> None:
        name = plan["id"]
        try:
            child = self._begin(plan, channels)
        except Exception as error:  # noqa: BLE001 - one sandbox's trouble must not end the others
            counted: dict[str, int] = {}
            self._say(
                {"say": "ended", "id": name, "status": -1, "stderr": str(error), "counted": counted}
            )
            return
        finally:
            for channel in channels:
                os.close(channel)
        self._children[name] = child
        self._selector.register(child.pidfd, selectors.EVENT_READ, lambda: self._ended(child))
        if child.info >= 0:
            self._selector.register(child.info, selectors.EVENT_READ, lambda: self._started(child))
        else:
            self._started(child)

    def _begin(self, plan: dict[str, Any], channels: list[int]) -> Child:
        """Start a sandbox.

        Raises:
            Refused: It would run as root, or no uid is free.
            OSError: The host refused something.
        """
        child = Child(plan, self._stage)
        try:
            child.start(channels)
        except BaseException:
            child.give_back()
            raise
        return child

    def _started(self, child: Child) -> None:
        """The runtime tells which process is PID 1, or closes the pipe without a word."""
        info = child.info
        init = child.take_init()
        if child.info < 0 <= info:
            self._selector.unregister(info)
        if init is not None:
            said = {"say": "started", "id": child.name, "pid": init.pid, "uid": child.uid}
            opened = [init.pidfd, child.workspace] if child.workspace >= 0 else [init.pidfd]
            self._say(said, opened)

    def _ended(self, child: Child) -> None:
        self._selector.unregister(child.pidfd)
        if child.info >= 0:
            self._selector.unregister(child.info)
        del self._children[child.name]
        with self._host():
            self._leaving[child.name] = (child, child.reap())

    def _owner_died(self) -> None:
        self._selector.unregister(self._owner)
        self._serving = False

    def _say(self, message: dict[str, Any], descriptors: list[int] | None = None) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors or []))]
        try:
            self._control.sendmsg([json.dumps(message).encode()], rights if descriptors else [])
        except OSError:
            self._serving = False  # nobody listens any more
