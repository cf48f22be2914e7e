"""What every runtime is given and gives back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

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
    """

    mounts: tuple[Mount, ...]
    links: Mapping[str, str]
    texts: Mapping[str, str]
    python: str
    agent: str
    env: Mapping[str, str]
    site: tuple[str, ...]


@attrs.frozen(kw_only=True)
class LaunchPlan:
    """All that decides how one sandbox is started.

    Attributes:
        sandbox_id: The sandbox.
        policy: The rules of its level.
        view: What it sees of the host.
        workspace: The host folder shown as ``WORKSPACE``.
        tmp_bytes: Size of ``/tmp`` and of ``/dev/shm``.
        seccomp: The compiled filter.
    """

    sandbox_id: str
    policy: Policy
    view: View
    workspace: Path
    tmp_bytes: int
    seccomp: bytes


@attrs.frozen(kw_only=True)
class Program:
    """What the launcher executes to make a sandbox.

    Attributes:
        argv: The program and its arguments; none of them tells anything about the sandbox.
        blobs: What it reads from the descriptors from ``FIRST_BLOB`` on.
    """

    argv: tuple[str, ...]
    blobs: tuple[bytes, ...]


class Runtime(Protocol):
    """One way to build a sandbox."""

    @property
    def name(self) -> str:
        """The runtime's name, as reported in ``sandbox.isolation``."""
        ...

    def probe(self) -> tuple[Wall, ...]:
        """Find out what this host allows, each wall with the reason and fix if it is missing."""
        ...

    def program(self, plan: LaunchPlan) -> Program:
        """Return what to execute; every path of the plan is one the program can reach."""
        ...
