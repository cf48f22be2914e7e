"""From a sandbox's spec to what the launcher is asked to do."""

from __future__ import annotations

import hashlib
import itertools
import math
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import attrs

from sandbox_sdk.engine.launcher import STAGE
from sandbox_sdk.engine.view import GUEST_ENV
from sandbox_sdk.isolation import filters
from sandbox_sdk.isolation.runtimes.base import RUN, WORKSPACE, LaunchPlan, Runtime, View
from sandbox_sdk.isolation.walls import kernel
from sandbox_sdk.isolation.walls.cgroups import GroupLimits, Hierarchy
from sandbox_sdk.policies import Policy
from sandbox_sdk.values import Mount, SandboxSpec

UID_FOLDER = f"{RUN}/uids"
"""Where uids given out as root are locked, for all clients of this host."""

# What stands in a sandbox's control group besides guests: bwrap, the agent, and a keeper.
_OWN_PROCESSES = 3
_AGENT_FILES = 4096
_PIPE_CORE_HANDLER = 1  # a core limit of 0 does not stop a handler behind a pipe, 1 does

_rotation = itertools.count(os.getpid())


@attrs.frozen(kw_only=True)
class Request:
    """What to ask of the launcher, and what to tell the agent once it reported.

    Attributes:
        launch: The launcher's request, without ``id``.
        go: The body of ``GO``.
    """

    launch: Mapping[str, Any]
    go: Mapping[str, Any]


def build(
    sandbox_id: str,
    spec: SandboxSpec,
    *,
    policy: Policy,
    runtime: Runtime,
    view: View,
    workspace: Path,
    hierarchy: Hierarchy | None,
    uid_range: tuple[int, int],
) -> Request:
    """Return the requests that start a sandbox by this spec."""
    resources = spec.resources
    staging = _Staging() if os.geteuid() == 0 else None
    shown = staging.show if staging else _as_is
    mounts = [*view.mounts, *spec.mounts]
    plan = LaunchPlan(
        sandbox_id=sandbox_id,
        policy=policy,
        view=attrs.evolve(
            view, mounts=tuple(Mount(source=shown(m.source), target=m.target) for m in mounts)
        ),
        workspace=staging.own(workspace) if staging else workspace,
        tmp_bytes=resources.tmp_bytes,
        seccomp=filters.build(policy, kernel.MACHINE, memory_counted=hierarchy is not None),
    )
    program = runtime.program(plan)
    argv = list(program.argv)
    if staging:
        argv[0] = str(staging.show_program(Path(argv[0])))
    launch = {
        "argv": argv,
        "blobs": [blob.decode("latin-1") for blob in program.blobs],
        "binds": staging.binds if staging else [],
        "own_binds": staging.own_targets if staging else [],
        "workspace": str(workspace),
        "uid_range": uid_range,
        "uid_folder": UID_FOLDER,
        "hierarchy": None if hierarchy is None else asdict(hierarchy),
        "group_limits": asdict(
            GroupLimits(
                memory_bytes=resources.memory_bytes,
                cpu=resources.cpu,
                pids=resources.pids + _OWN_PROCESSES,
            )
        ),
        "affinity": affinity(resources.cpu),
        "rlimits": {"core": _PIPE_CORE_HANDLER, "nofile": _AGENT_FILES},
    }
    guests = {
        "core": _PIPE_CORE_HANDLER,
        "fsize": resources.file_size_bytes,
        "nofile": resources.open_files,
    }
    if hierarchy is None:
        guests["nproc"] = resources.pids + _OWN_PROCESSES
        guests["data"] = resources.memory_bytes
    go = {
        "rlimits": guests,
        "env": {**GUEST_ENV, **view.env, **spec.env},
        "workspace": WORKSPACE,
        "site": list(view.site),
    }
    return Request(launch=launch, go=go)


def affinity(cpu: float) -> list[int]:
    """Return the cores a sandbox may run on: ``ceil(cpu)`` of ours, another set each time."""
    cores = sorted(os.sched_getaffinity(0))
    wanted = min(len(cores), math.ceil(cpu))
    start = next(_rotation)
    return sorted(cores[(start + step) % len(cores)] for step in range(wanted))


def _as_is(path: Path) -> Path:
    return path


class _Staging:
    """Names under which a root launcher shows folders to the uid it drops to."""

    def __init__(self) -> None:
        self.binds: list[tuple[str, str, bool]] = []
        self.own_targets: list[str] = []

    def show(self, source: Path) -> Path:
        """Show a folder read-only for as long as the launcher lives."""
        return self._bind(source, read_only=True)

    def own(self, source: Path) -> Path:
        """Show a folder writable for as long as this sandbox lives."""
        target = self._bind(source, read_only=False)
        self.own_targets.append(str(target))
        return target

    def show_program(self, path: Path) -> Path:
        """Show a program; one outside ``/usr`` with the packages folder its libraries lie in."""
        if path.is_relative_to("/usr"):
            return path
        packages = next((p for p in path.parents if p.name == "site-packages"), path.parent)
        return self.show(packages) / path.relative_to(packages)

    def _bind(self, source: Path, *, read_only: bool) -> Path:
        if read_only and source.is_relative_to("/usr"):
            return source
        name = hashlib.sha256(os.fsencode(source)).hexdigest()[:24]
        target = Path(STAGE) / name
        self.binds.append((str(source), str(target), read_only))
        return target
