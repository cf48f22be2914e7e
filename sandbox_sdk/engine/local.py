"""Starts sandboxes on this machine: one launcher, one runtime, one view for all of them."""

from __future__ import annotations

import json
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import attrs

from sandbox_sdk.agent import frames
from sandbox_sdk.engine import limits, payload, plan, proof
from sandbox_sdk.engine.channel import SocketChannel
from sandbox_sdk.engine.launcher import Launched, Launcher
from sandbox_sdk.engine.running import Running, host_uid
from sandbox_sdk.engine.supervisor import Supervisor
from sandbox_sdk.engine.templates import Templates
from sandbox_sdk.errors import IsolationError, LaunchError, ProtocolError, SandboxError
from sandbox_sdk.isolation.runtimes.base import Runtime
from sandbox_sdk.isolation.runtimes.bubblewrap import Bubblewrap, find
from sandbox_sdk.isolation.walls import cgroups
from sandbox_sdk.policies import policy
from sandbox_sdk.values import Ended, Isolation, SandboxSpec

START_SECONDS = 30.0
"""Longest wait for a sandbox to report; a loaded host may need seconds."""

_BWRAP_SETS = "PWD"


@attrs.frozen(kw_only=True)
class _Host:
    """What is found out once per client.

    Attributes:
        runtime: What makes sandboxes.
        hierarchy: Where control groups can be made.
        no_group: Why they cannot.
        agent: The agent's folder.
    """

    runtime: Runtime
    hierarchy: cgroups.Hierarchy | None
    no_group: str
    agent: Path


class Engine:
    """Starts sandboxes. The host is looked at, and the launcher started, on first use."""

    def __init__(
        self,
        supervisor: Supervisor,
        *,
        agent_folder: Path,
        templates: Templates,
        uid_range: tuple[int, int],
    ) -> None:
        self._supervisor = supervisor
        self._agent_folder = agent_folder
        self._templates = templates
        self._uid_range = uid_range
        self._host: _Host | None = None
        self._launcher: Launcher | None = None
        self._preparing = anyio.Lock()  # guards _host and _launcher

    async def start(
        self,
        sandbox_id: str,
        spec: SandboxSpec,
        workspace: Path,
        on_end: Callable[[Running, Ended], Awaitable[None]],
    ) -> tuple[Running, SocketChannel]:
        """Start a sandbox and prove its walls. The caller runs ``Running.guard``.

        Returns:
            The running sandbox, and the channel to its agent, which has had its go.

        Raises:
            IsolationError: A wall cannot be had on this host, or was not proven from inside.
            LaunchError: It did not start or report in time.
            TemplateError: Its template cannot be built or used.
        """
        rules = policy(spec.security_level)
        host, launcher = await self._prepare()
        template = await self._templates.resolve(spec, host.agent)
        request = plan.build(
            sandbox_id,
            spec,
            policy=rules,
            runtime=host.runtime,
            view=template.view,
            workspace=workspace,
            hierarchy=host.hierarchy,
            uid_range=self._uid_range,
        )
        ours, theirs = socket.socketpair()
        channel = SocketChannel(ours)
        try:
            with theirs:
                launched = await launcher.launch({"id": sandbox_id, **request.launch}, theirs)
        except BaseException:
            channel.close()
            raise
        try:
            hello = await _hello(launched, channel)
            walls = proof.prove(
                rules,
                hello,
                host_uid=host_uid(launched.pid),
                allowed_env=frozenset({*template.view.env, _BWRAP_SETS}),
            )
            running = Running(
                spec=spec,
                launched=launched,
                launcher=launcher,
                workspace=workspace,
                group=host.hierarchy.group(sandbox_id) if host.hierarchy else None,
                isolation=Isolation(
                    level=spec.security_level, runtime=host.runtime.name, walls=walls
                ),
                limits=limits.held(spec, host.hierarchy, host.no_group),
                activity=channel.activity,
                on_end=on_end,
            )
            go = json.dumps(request.go).encode()
            await channel.send(frames.encode(frames.GO, body=go))
        except BaseException as error:
            with anyio.CancelScope(shield=True):
                await launcher.kill(launched)
                await launched.ended.wait()
                launched.release()
                channel.close()
            if isinstance(error, SandboxError) or not isinstance(error, Exception):
                raise
            raise LaunchError(
                f"sandbox {sandbox_id} ended while it started: {error} {launched.stderr}",
                sandbox_id=sandbox_id,
            ) from error
        return running, channel

    async def aclose(self) -> None:
        """End the launcher and with it every sandbox. Idempotent."""
        if self._launcher is not None:
            await self._launcher.aclose()
        self._templates.release()

    async def _prepare(self) -> tuple[_Host, Launcher]:
        async with self._preparing:
            if self._host is None:
                self._host = await anyio.to_thread.run_sync(self._look)
            if self._launcher is None or not self._launcher.alive:
                if self._launcher is not None:
                    await self._launcher.aclose()
                self._launcher = await Launcher.start(self._host.agent, self._supervisor)
            return self._host, self._launcher

    def _look(self) -> _Host:
        """Look at the host, in a worker thread.

        Raises:
            IsolationError: The runtime is not usable here.
        """
        runtime = Bubblewrap(find())
        missing = tuple(wall for wall in runtime.probe() if not wall.in_force)
        if missing:
            said = "; ".join(f"{wall.detail}. To mend it: {wall.fix}" for wall in missing)
            raise IsolationError(f"no sandbox can be made on this host: {said}", walls=missing)
        agent = payload.install(self._agent_folder)
        hierarchy, no_group = cgroups.find()
        return _Host(
            runtime=runtime,
            hierarchy=hierarchy,
            no_group=no_group,
            agent=agent,
        )


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
            f"sandbox {launched.sandbox_id} did not report within {START_SECONDS:g} s; the host "
            "may be overloaded: try again, or start fewer at a time",
            sandbox_id=launched.sandbox_id,
        ) from error
    if frame.kind != frames.HELLO:
        raise ProtocolError(f"the agent began with frame {frame.kind} instead of its report")
    hello: dict[str, Any] = json.loads(frame.body)
    return hello
