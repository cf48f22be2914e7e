"""Host folders shown, as root, under paths that an unprivileged uid can reach."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from sandbox_sdk.engine.launcher import STAGE
from sandbox_sdk.isolation.runtimes.base import LaunchPlan, Runtime
from sandbox_sdk.values import Mount


def executed(runtime: Runtime, plan: LaunchPlan) -> Mapping[str, Any]:
    """Return the part of the launcher's request for a runtime that executes a program."""
    if os.geteuid() != 0:
        return {**runtime.launch(plan), "binds": [], "own_binds": []}
    staging = _Staging()
    view = plan.template.view
    mounts = tuple(Mount(source=staging.show(m.source), target=m.target) for m in view.mounts)
    shared = attrs.evolve(plan.template, view=attrs.evolve(view, mounts=mounts))
    request = runtime.launch(
        attrs.evolve(plan, template=shared, workspace=staging.own(plan.workspace))
    )
    program, *arguments = request["argv"]
    return {
        **request,
        "argv": [str(staging.show_program(Path(program))), *arguments],
        "binds": staging.binds,
        "own_binds": staging.own_targets,
    }


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
