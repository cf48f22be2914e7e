"""From a sandbox's spec to what the launcher is asked to do."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from sandbox_sdk.engine import plain, staging
from sandbox_sdk.engine.templates import BUILT_IN, Template
from sandbox_sdk.engine.view import GUEST_ENV
from sandbox_sdk.errors import IsolationError
from sandbox_sdk.isolation import filters
from sandbox_sdk.isolation.runtimes.base import (
    RUN,
    WORKSPACE,
    LaunchPlan,
    Runtime,
    TemplatePlan,
)
from sandbox_sdk.isolation.walls import kernel
from sandbox_sdk.isolation.walls.cgroups import GroupLimits, Hierarchy
from sandbox_sdk.policies import Policy
from sandbox_sdk.values import Mount, SandboxSpec

UID_FOLDER = f"{RUN}/uids"
"""Where uids given out as root are locked, for all clients of this host."""

# What stands in a sandbox's control group besides guests: the agent and a keeper, and bwrap.
_OWN_PROCESSES, _AND_BWRAP = 2, 3
_AGENT_FILES = 4096
_PIPE_CORE_HANDLER = 1  # a core limit of 0 does not stop a handler behind a pipe, 1 does

_rotation = itertools.count(os.getpid())


def template(
    found: Template,
    mounts: Sequence[Mount],
    *,
    policy: Policy,
    agent: Path,
    state: Path,
    memory_counted: bool,
    uid_range: tuple[int, int],
) -> TemplatePlan:
    """Return what all sandboxes of a template, a level and these further mounts share.

    Args:
        found: The template.
        mounts: Shown besides.
        policy: The level's rules.
        agent: The agent's folder on the host.
        state: The state folder.
        memory_counted: Whether a control group counts all memory.
        uid_range: First and number of the uids that root gives out.

    Raises:
        IsolationError: Mounts are asked for at a level that makes none.
    """
    if mounts and not policy.namespaces:
        raise IsolationError(
            f'security level "{policy.level}" cannot show {mounts[0].source} inside, for it makes '
            'no mounts: ask for security_level="medium"',
            level=policy.level,
        )
    return TemplatePlan(
        policy=policy,
        view=attrs.evolve(found.view, mounts=(*found.view.mounts, *mounts)),
        preload=found.preload,
        trusted=found.key in BUILT_IN,
        seccomp=filters.build(policy, kernel.MACHINE, memory_counted=memory_counted),
        base=agent,
        state=state,
        # The last of the range is the least likely to be in use.
        trial_uid=sum(uid_range) - 1 if os.geteuid() == 0 else 0,
    )


def launch(
    spec: SandboxSpec,
    *,
    shared: TemplatePlan,
    runtime: Runtime,
    workspace: Path,
    hierarchy: Hierarchy | None,
    uid_range: tuple[int, int],
) -> Mapping[str, Any]:
    """Return what to ask of the launcher, without ``id``, for a sandbox by this spec."""
    resources = spec.resources
    plan = LaunchPlan(
        template=shared,
        workspace=workspace,
        tmp=plain.tmp(workspace),
        tmp_bytes=resources.tmp_bytes,
        disk_bytes=resources.disk_bytes,
        disk_files=resources.disk_files,
    )
    return {
        **(runtime.launch(plan) if runtime.clones else staging.executed(runtime, plan)),
        "workspace": str(workspace),
        "uid_range": uid_range if os.geteuid() == 0 else None,
        "uid_folder": UID_FOLDER,
        "hierarchy": None if hierarchy is None else hierarchy._asdict(),
        "group_limits": GroupLimits(
            memory_bytes=resources.memory_bytes,
            cpu=resources.cpu,
            pids=resources.pids + (_OWN_PROCESSES if runtime.clones else _AND_BWRAP),
        )._asdict(),
        "affinity": affinity(resources.cpu),
        "rlimits": {"core": _PIPE_CORE_HANDLER, "nofile": _AGENT_FILES},
    }


def settings(
    spec: SandboxSpec, shared: TemplatePlan, workspace: Path, *, memory_counted: bool
) -> dict[str, Any]:
    """Return the body of ``GO``: what the agent is told once it reported.

    Args:
        spec: The sandbox.
        shared: What it shares with others of its template.
        workspace: The host folder of its files.
        memory_counted: Whether a control group counts all memory.
    """
    apart = shared.policy.namespaces
    resources = spec.resources
    guests = {
        "core": _PIPE_CORE_HANDLER,
        "fsize": resources.file_size_bytes,
        "nofile": resources.open_files,
    }
    if not memory_counted:
        if counts_processes(shared.policy):
            guests["nproc"] = resources.pids + _OWN_PROCESSES
        guests["data"] = resources.memory_bytes
    return {
        "rlimits": guests,
        "env": {
            **GUEST_ENV,
            **({} if apart else _places(shared, workspace)),
            **shared.view.env,
            **spec.env,
        },
        "workspace": WORKSPACE if apart else str(workspace),
        "site": list(shared.view.site),
        "seed": spec.seed,
    }


def counts_processes(policy: Policy) -> bool:
    """Whether ``RLIMIT_NPROC``, which counts per uid and user namespace, counts a sandbox alone."""
    return policy.namespaces or os.geteuid() == 0


def _places(shared: TemplatePlan, workspace: Path) -> dict[str, str]:
    """What the environment says of folders that are not where mounts would have put them."""
    tmp = str(plain.tmp(workspace))
    path = f"{shared.view.venv}/bin:/usr/local/bin:/usr/bin:/bin"
    return {"PATH": path, "HOME": tmp, "TMPDIR": tmp, "PWD": str(workspace)}


def affinity(cpu: float) -> list[int]:
    """Return the cores a sandbox may run on: ``ceil(cpu)`` of ours, another set each time."""
    cores = sorted(os.sched_getaffinity(0))
    wanted = min(len(cores), math.ceil(cpu))
    start = next(_rotation)
    return sorted(cores[(start + step) % len(cores)] for step in range(wanted))
