"""What every runtime is given and gives back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import attrs

from sandbox_sdk.policies import Policy
from sandbox_sdk.values import Mount, Wall

CHANNEL, INFO, FIRST_BLOB = 3, 4, 5
"""Descriptors that a runtime's program is started with; blobs follow in their order."""

RUN = "/run/sandbox-sdk"
"""Where root's sandboxes have their locks, and folders shown to the uids it drops to."""

WORKSPACE = "/workspace"
"""Where a sandbox's workspace is shown inside."""

INSIDE_UID = 1000
"""The uid and gid that code inside sees as its own."""


@attrs.frozen(kw_only=True)
class View:
    """What a sandbox sees of the host, besides its workspace.

    Attributes:
        mounts: Read-only folders and files.
        links: Path inside -> what the symbolic link there says.
        texts: Path inside -> content of a file made for it.
        python: The interpreter's path inside.
        agent: The folder of the agent's program inside.
        env: What the interpreter itself needs in its environment.
        site: Folders inside with the packages of Python contexts.
        packages: Folders inside with packages, which a ``.pth`` file of ``site`` may name.
        venv: The folder inside of an environment, whose ``bin`` has ``python``.
    """

    mounts: tuple[Mount, ...]
    links: Mapping[str, str]
    texts: Mapping[str, str]
    python: str
    agent: str
    env: Mapping[str, str]
    site: tuple[str, ...]
    packages: tuple[str, ...]
    venv: str


@attrs.frozen(kw_only=True)
class TemplatePlan:
    """All that is the same for every sandbox of one launcher.

    Attributes:
        policy: The rules of the level.
        view: What its sandboxes see of the host.
        preload: Modules that they find imported.
        trusted: Whether the packages are the user's own environment, whose start-up code may run
            outside of any sandbox.
        seccomp: The compiled filter.
        base: Any folder of the host, to mount on where nobody else sees it.
        state: The state folder, with all workspaces.
        trial_uid: As root, the uid of a throw-away sandbox that is made at first; else 0.
    """

    policy: Policy
    view: View
    preload: tuple[str, ...]
    trusted: bool
    seccomp: bytes
    base: Path
    state: Path
    trial_uid: int


@attrs.frozen(kw_only=True)
class Boot:
    """How a launcher is started.

    Attributes:
        task: What the agent's folder is executed for.
        plan: What it reads then, or nothing.
    """

    task: str
    plan: Mapping[str, object] | None = None


@attrs.frozen(kw_only=True)
class LaunchPlan:
    """All that decides how one sandbox is started.

    Attributes:
        template: What it shares with others.
        workspace: The host folder shown as ``WORKSPACE``.
        tmp: The host folder for temporary files, where no mount can be made.
        tmp_bytes: Size of ``/tmp`` and of ``/dev/shm``.
        disk_bytes: What a workspace in memory holds.
        disk_files: How many files and folders a workspace in memory holds.
    """

    template: TemplatePlan
    workspace: Path
    tmp: Path
    tmp_bytes: int
    disk_bytes: int
    disk_files: int


class Runtime(Protocol):
    """One way to build a sandbox."""

    @property
    def name(self) -> str:
        """The runtime's name, as reported in ``sandbox.isolation``."""
        ...

    @property
    def clones(self) -> bool:
        """Whether its launcher is a zygote, one for each template, of which sandboxes are clones.

        Else one launcher serves all, and executes a program for each sandbox.
        """
        ...

    def probe(self) -> tuple[Wall, ...]:
        """Find out what this host allows, each wall with the reason and fix if it is missing."""
        ...

    def boot(self, plan: TemplatePlan) -> Boot:
        """Return how its launcher is started."""
        ...

    def launch(self, plan: LaunchPlan) -> Mapping[str, Any]:
        """Return its part of the launcher's request.

        Where a program is executed, every path of the plan is one the program can reach.
        """
        ...
