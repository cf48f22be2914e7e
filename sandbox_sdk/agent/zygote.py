"""The zygote: a launcher with the template's imports, whose clones are the sandboxes.

It runs inside the template's tree, which ``zygote_build.py`` made: no file of the host but those
shown read-only is ever mapped by it or by its clones.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from sandbox_sdk.agent import containment, init, zygote_start
from sandbox_sdk.agent.boot import read_plan
from sandbox_sdk.agent.cloned_child import ClonedChild, try_out
from sandbox_sdk.agent.launcher import Launcher
from sandbox_sdk.agent.sandbox_child import Child
from sandbox_sdk.agent.tree import Views
from sandbox_sdk.isolation.walls import kernel, landlock, namespaces

_SPARE_NETWORKS = 8


def serve(control: str, template: str, host: str, tree: str) -> None:
    """Serve as the zygote, in the tree, until the socket ends; in a sandbox, as its PID 1.

    Args:
        control: The descriptor of the launcher's socket.
        template: The descriptor of a file with the template, as JSON.
        host: The descriptor of the mount namespace where the host can be reached.
        tree: The descriptor of the one of the tree.
    """
    for descriptor in map(int, (control, template, host, tree)):
        os.set_inheritable(descriptor, False)
    plan = read_plan(int(template))
    os.close(int(template))
    views = Views(int(host), int(tree))

    def prepare() -> Callable[[socket.socket], Launcher]:
        walls = containment.Walls(
            seccomp=plan["seccomp"].encode("latin-1"),
            landlock=landlock.abi() if plan["landlock"] else 0,
            readable=tuple(
                path for path in (f"/{name}" for name in os.listdir("/"))
                if path not in containment.WRITABLE
            ),
        )  # fmt: skip
        try_out(walls, plan["trial_uid"])
        return lambda channel: Zygote(channel, views, walls)

    zygote_start.serve(
        int(control), plan, on_host=views.on_host, prepare=prepare, become=init.main_ahead
    )


class Zygote(Launcher):
    """A launcher that clones itself."""

    def __init__(self, control: socket.socket, views: Views, walls: containment.Walls) -> None:
        self._views = views
        self._walls = walls
        with views.on_host():
            self._own_network = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._networks: list[int] = []
        super().__init__(control, "")

    def _host(self) -> AbstractContextManager[None]:
        return self._views.on_host()

    def _begin(self, plan: dict[str, Any], channels: list[int]) -> Child:
        with self._host():
            child = ClonedChild(plan, self._walls)
        network = self._networks.pop() if self._networks else namespaces.enter_new_network()
        try:
            kernel.setns(network, namespaces.CLONE_NEWNET)
            child.start(channels)
        except Exception:
            with self._host():
                child.give_back()
            raise
        finally:
            if os.getpid() != 1:
                kernel.setns(self._own_network, namespaces.CLONE_NEWNET)
                os.close(network)
        return child

    def _wants_idle(self) -> bool:
        return len(self._networks) < _SPARE_NETWORKS

    def _idle(self) -> None:
        """Make a network namespace ahead."""
        self._networks.append(namespaces.enter_new_network())
        kernel.setns(self._own_network, namespaces.CLONE_NEWNET)
