"""The zygote: a launcher with the template's imports, whose clones are the sandboxes.

It starts as any launcher does, builds the template's mount tree, and executes the template's own
interpreter inside that tree, so that no file of the host but those shown read-only is ever mapped
by it or by its clones. Then it imports what the template asks for, and serves.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from sandbox_sdk.agent import containment, init, zygote_start
from sandbox_sdk.agent.cloned_child import ClonedChild, try_out
from sandbox_sdk.agent.launcher import Launcher, live_apart
from sandbox_sdk.agent.sandbox_child import Child, memory_file
from sandbox_sdk.agent.tree import Views, enter
from sandbox_sdk.agent.zygote_start import read_plan, refuse
from sandbox_sdk.isolation.walls import capabilities, kernel, landlock, mounts, namespaces

_SPARE_NETWORKS = 8
_OUTER_ID = 1
_INSIDE = ("preload", "site", "trusted", "seccomp", "landlock", "trial_uid")


def build(control: str, template: str) -> None:
    """Become the zygote of a template: build its tree and execute its interpreter in it.

    Args:
        control: The descriptor of the launcher's socket.
        template: The descriptor of a file with the template, as JSON.
    """
    live_apart()
    plan = read_plan(int(template))
    try:
        views = _enter(plan)
    except OSError as error:
        refuse(int(control), "walls", error)
    # Clones inherit what this process ever read: not the names of host folders.
    inside = memory_file(json.dumps({name: plan[name] for name in _INSIDE}))
    kept = [int(control), inside, *views]
    for descriptor in kept:
        os.set_inheritable(descriptor, True)
    argv = [plan["python"], "-I", "-S", plan["agent"], "zygote", *map(str, kept)]
    os.execve(plan["python"], argv, plan["env"])  # noqa: S606


def _enter(plan: dict[str, Any]) -> Views:
    """Gain the right to make mounts, unseen by all others, and enter the template's tree."""
    if os.geteuid() == 0:
        mounts.enter_private_namespace()
        os.setgroups([])
    else:
        uid, gid = os.geteuid(), os.getegid()
        kernel.unshare(namespaces.CLONE_NEWUSER | namespaces.CLONE_NEWNS)
        # Not as its uid 0, which would own the /proc files of agents: to guests they are the same.
        namespaces.map_ids(_OUTER_ID, uid, gid)
        capabilities.keep_through_exec()
        mounts.cut_off()
    kernel.unshare(namespaces.CLONE_NEWNET)  # to which it may return from a sandbox's
    return enter(
        plan["base"],
        shown=[(source, target) for source, target in plan["mounts"]],
        links=plan["links"],
        texts=plan["texts"],
    )


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
