"""The first of a zygote's two lives: it builds the template's mount tree, and starts anew in it.

The template's own interpreter is executed inside that tree. Little is imported here, for all of it
is imported once more there.
"""

from __future__ import annotations

import json
import os
from typing import Any

from sandbox_sdk.agent.boot import live_apart, memory_file, read_plan, refuse
from sandbox_sdk.agent.tree import Views, enter
from sandbox_sdk.isolation.walls import capabilities, kernel, mounts, namespaces

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
