"""A sandbox that stands and is proven, but is nobody's yet: it knows no name, code or secret."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import anyio
import attrs

from sandbox_sdk.agent import frames
from sandbox_sdk.engine import plain, plan, proof
from sandbox_sdk.engine.channel import SocketChannel
from sandbox_sdk.engine.launcher import Launched, Launcher, start_failure
from sandbox_sdk.errors import LaunchError, ProtocolError, SandboxError
from sandbox_sdk.isolation.runtimes.base import Runtime, TemplatePlan
from sandbox_sdk.isolation.walls import cgroups
from sandbox_sdk.values import Mount, Resources, RuntimeName, SandboxSpec, SecurityLevel, Wall

START_SECONDS = 30.0
"""Longest wait for a sandbox to report; a loaded host may need seconds."""

_BWRAP_SETS = "PWD"


@attrs.frozen(kw_only=True)
class Shape:
    """All of a spec that decides how a sandbox is started; equal shapes are interchangeable.

    Attributes:
        template: The template's key.
        preload: Modules imported ahead.
        level: The security level.
        waive: Walls and limits that may be missing.
        runtime: The runtime asked for.
        resources: The limits.
        mounts: What is shown besides.
    """

    template: str
    preload: tuple[str, ...]
    level: SecurityLevel
    waive: tuple[str, ...]
    runtime: RuntimeName | None
    resources: Resources
    mounts: tuple[Mount, ...]

    @classmethod
    def of(cls, spec: SandboxSpec, template: str) -> Shape:
        """Return the shape of a sandbox whose template has this key."""
        return cls(
            template=template,
            preload=spec.preload,
            level=spec.security_level,
            waive=spec.waive,
            runtime=spec.runtime,
            resources=spec.resources,
            mounts=spec.mounts,
        )


@attrs.define(eq=False, kw_only=True)
class Blank:
    """A sandbox that waits for its go.

    Attributes:
        name: What the launcher and the control group know it by.
        launched: The launcher's hold on it.
        launcher: The launcher.
        runtime: What built it.
        shared: What it shares with others of its template.
        channel: To its agent.
        context: The socket of the context that was forked ahead; ``None`` where none was.
        walls: What was proven.
        workspace: The host folder that it has as its workspace, or that one in memory is saved to.
        group: Its control group.
        stood_ready: Whether it was made before anyone asked for it.
    """

    name: str
    launched: Launched
    launcher: Launcher
    runtime: Runtime
    shared: TemplatePlan
    channel: SocketChannel
    context: socket.socket | None
    walls: tuple[Wall, ...]
    workspace: Path
    group: cgroups.Group | None
    stood_ready: bool = False

    @property
    def in_memory(self) -> bool:
        """Whether its workspace is a file system of its own."""
        return self.launched.workspace >= 0

    async def go(self, settings: dict[str, Any]) -> None:
        """Tell it the settings of the sandbox that it becomes.

        Raises:
            ConnectionError: It has ended.
        """
        body = json.dumps(settings).encode()
        await self.channel.send(frames.encode(frames.GO, body=body))
        if self.context is not None:
            await self.channel.have_context(self.context, body + b"\n")

    async def discard(self) -> None:
        """End it, and wait until nothing of it is left."""
        with anyio.CancelScope(shield=True):
            await self.launcher.kill(self.launched)
            await self.launched.ended.wait()
            self.close()

    def close(self) -> None:
        """Give its descriptors back."""
        self.launched.release()
        self.channel.close()
        if self.context is not None:
            self.context.close()


async def start(
    name: str,
    spec: SandboxSpec,
    workspace: Path,
    *,
    runtime: Runtime,
    launcher: Launcher,
    shared: TemplatePlan,
    hierarchy: cgroups.Hierarchy | None,
    uid_range: tuple[int, int],
) -> Blank:
    """Start a sandbox and prove its walls.

    Raises:
        IsolationError: A wall cannot be had on this host, or was not proven from inside.
        LaunchError: It did not start or report in time.
    """
    if not shared.policy.namespaces:
        await anyio.to_thread.run_sync(plain.make_tmp, workspace)
    request = plan.launch(
        spec,
        shared=shared,
        runtime=runtime,
        workspace=workspace,
        hierarchy=hierarchy,
        uid_range=uid_range,
    )
    ours, theirs = socket.socketpair()
    context, its_end = socket.socketpair()
    channel = SocketChannel(ours)
    try:
        with theirs, its_end:
            launched = await launcher.launch({"id": name, **request}, [theirs, its_end])
    except BaseException:
        channel.close()
        context.close()
        raise
    blank = Blank(
        name=name,
        launched=launched,
        launcher=launcher,
        runtime=runtime,
        shared=shared,
        channel=channel,
        context=context,
        walls=(),
        workspace=workspace,
        group=hierarchy.group(name) if hierarchy else None,
    )
    try:
        hello = await _hello(launched, channel)
        blank.walls = proof.prove(
            shared.policy,
            hello,
            host_uid=proof.host_uid(launched.pid),
            allowed_env=frozenset({*shared.view.env, _BWRAP_SETS}),
            waive=spec.waive,
        )
        if not hello["ahead"]:
            context.close()
            blank.context = None
    except BaseException as error:
        await blank.discard()
        if isinstance(error, SandboxError) or not isinstance(error, Exception):
            raise
        said = f"the sandbox ended while it started: {launched.stderr or error}"
        raise start_failure(said) from error
    return blank


async def _hello(launched: Launched, channel: SocketChannel) -> dict[str, Any]:
    """Wait for the agent's report.

    Raises:
        LaunchError: It ended before, or took too long.
        ProtocolError: What it sent is no report.
    """
    try:
        with anyio.fail_after(START_SECONDS):
            await launched.wait_started()
            frame = frames.decode(await channel.receive())
    except TimeoutError as error:
        raise LaunchError(
            f"the sandbox did not report within {START_SECONDS:g} s; the host may be overloaded: "
            "try again, or start fewer at a time"
        ) from error
    if frame.kind != frames.HELLO:
        raise ProtocolError(f"the agent began with frame {frame.kind} instead of its report")
    hello: dict[str, Any] = json.loads(frame.body)
    return hello
