"""Starts sandboxes on this machine: finds template and runtime, launches, proves."""

from __future__ import annotations

import json
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import attrs

from sandbox_sdk.agent import frames
from sandbox_sdk.engine import limits, payload, plan, proof, saving
from sandbox_sdk.engine.channel import SocketChannel
from sandbox_sdk.engine.launcher import Launched
from sandbox_sdk.engine.launchers import Launchers
from sandbox_sdk.engine.running import Running, host_uid
from sandbox_sdk.engine.supervisor import Supervisor
from sandbox_sdk.engine.templates import Templates
from sandbox_sdk.errors import LaunchError, ProtocolError, SandboxError
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
        agent: The agent's folder.
        launchers: What starts sandboxes.
        hierarchy: Where control groups can be made.
        no_group: Why they cannot.
    """

    agent: Path
    launchers: Launchers
    hierarchy: cgroups.Hierarchy | None
    no_group: str


class Engine:
    """Starts sandboxes. The host is looked at, and a launcher started, on first use."""

    def __init__(
        self,
        supervisor: Supervisor,
        templates: Templates,
        *,
        agent_folder: Path,
        uid_range: tuple[int, int],
    ) -> None:
        self._supervisor = supervisor
        self._templates = templates
        self._agent_folder = agent_folder
        self._uid_range = uid_range
        self._host: _Host | None = None
        self._looking = anyio.Lock()  # guards _host

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
            TemplateError: Its template cannot be had.
        """
        rules = policy(spec.security_level)
        host = await self._look()
        template = await self._templates.resolve(spec, host.agent)
        shared = plan.template(
            template,
            spec.mounts,
            policy=rules,
            agent=host.agent,
            memory_counted=host.hierarchy is not None,
            uid_range=self._uid_range,
        )
        key = (template.key, template.preload, rules.level, spec.mounts)
        runtime, launcher = await host.launchers.find(shared, key, spec.runtime)
        request = plan.build(
            spec,
            shared=shared,
            runtime=runtime,
            workspace=workspace,
            hierarchy=host.hierarchy,
            uid_range=self._uid_range,
        )
        ours, theirs = socket.socketpair()
        context, its_end = socket.socketpair()
        channel = SocketChannel(ours)
        try:
            with theirs, its_end:
                launched = await launcher.launch(
                    {"id": sandbox_id, **request.launch}, [theirs, its_end]
                )
        except BaseException:
            channel.close()
            context.close()
            raise
        try:
            hello = await _hello(launched, channel)
            walls = proof.prove(
                rules,
                hello,
                host_uid=host_uid(launched.pid),
                allowed_env=frozenset({*shared.view.env, _BWRAP_SETS}),
                waive=spec.waive,
            )
            held = limits.held(
                spec, host.hierarchy, host.no_group, in_memory=launched.workspace >= 0
            )
            weak = limits.require(rules, held, spec.waive)
            missing = tuple(wall.name for wall in walls if not wall.in_force)
            live = await _opened(launched, workspace)
            running = Running(
                spec=spec,
                launched=launched,
                launcher=launcher,
                workspace=live,
                saved=workspace if launched.workspace >= 0 else None,
                group=host.hierarchy.group(sandbox_id) if host.hierarchy else None,
                isolation=Isolation(
                    level=spec.security_level,
                    runtime=runtime.name,
                    walls=walls,
                    waived=(*missing, *weak),
                ),
                limits=held,
                activity=channel.activity,
                on_end=on_end,
            )
            go = json.dumps(request.go).encode()
            await channel.send(frames.encode(frames.GO, body=go))
            if hello["ahead"]:
                await channel.have_context(context, go + b"\n")
            else:
                context.close()
        except BaseException as error:
            with anyio.CancelScope(shield=True):
                await launcher.kill(launched)
                await launched.ended.wait()
                launched.release()
                channel.close()
                context.close()
            if isinstance(error, SandboxError) or not isinstance(error, Exception):
                raise
            raise LaunchError(
                f"sandbox {sandbox_id} ended while it started: {error} {launched.stderr}",
                sandbox_id=sandbox_id,
            ) from error
        return running, channel

    async def aclose(self) -> None:
        """End every sandbox. Idempotent."""
        if self._host is not None:
            await self._host.launchers.aclose()
        self._templates.release()

    async def _look(self) -> _Host:
        """Look at the host, once."""
        async with self._looking:
            if self._host is None:
                agent = await anyio.to_thread.run_sync(payload.install, self._agent_folder)
                hierarchy, no_group = await anyio.to_thread.run_sync(cgroups.find)
                launchers = Launchers(agent, self._supervisor)
                self._host = _Host(
                    agent=agent, launchers=launchers, hierarchy=hierarchy, no_group=no_group
                )
            return self._host


async def _opened(launched: Launched, saved: Path) -> Path:
    """Return the workspace as this process reaches it; one in memory is filled first.

    Raises:
        OSError: What was saved does not fit.
    """
    if launched.workspace < 0:
        return saved
    live = Path(f"/proc/self/fd/{launched.workspace}")
    await anyio.to_thread.run_sync(saving.restore, saved, live, launched.uid or None)
    return live


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
