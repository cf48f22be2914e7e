"""Starts sandboxes on this machine: finds template and runtime, keeps some ready."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from pathlib import Path

import anyio
import attrs

from sandbox_sdk.engine import blank as blanks
from sandbox_sdk.engine import limits, payload, plain, plan, reaper, saving
from sandbox_sdk.engine.blank import Blank, Shape
from sandbox_sdk.engine.channel import SocketChannel
from sandbox_sdk.engine.launchers import Launchers
from sandbox_sdk.engine.pool import Pool
from sandbox_sdk.engine.room import read_host
from sandbox_sdk.engine.running import Running
from sandbox_sdk.engine.scale_log import ScaleLog
from sandbox_sdk.engine.supervisor import Supervisor
from sandbox_sdk.engine.templates import Templates
from sandbox_sdk.errors import IsolationError, LaunchError, SandboxError
from sandbox_sdk.isolation.runtimes.base import TemplatePlan
from sandbox_sdk.isolation.walls import cgroups
from sandbox_sdk.policies import policy
from sandbox_sdk.policies.host import HostState
from sandbox_sdk.values import Ended, Isolation, SandboxSpec
from sandbox_sdk.vault import Vault


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


@attrs.frozen(kw_only=True)
class Places:
    """Where the engine keeps what it makes.

    Attributes:
        agent: Copies of the agent's program.
        ready: Workspaces of sandboxes that are nobody's yet, on the file system of all others.
        prefix: Begins the name of every control group of ours, and of every folder in ``ready``.
        library: A file with libsodium for the agents, where their channels are to be sealed.
    """

    agent: Path
    ready: Path
    prefix: str
    library: Path | None = None


class Engine:
    """Starts sandboxes. The host is looked at, and a launcher started, on first use."""

    def __init__(
        self,
        supervisor: Supervisor,
        templates: Templates,
        places: Places,
        vault: Vault,
        *,
        uid_range: tuple[int, int],
        pool_size: int,
        scaled: bool,
        scale_log: ScaleLog,
    ) -> None:
        self._templates = templates
        self._places = places
        self._vault = vault
        self._uid_range = uid_range
        self._numbers = itertools.count(1)
        self._shared: dict[object, TemplatePlan] = {}
        self.pool = Pool(
            self._make,
            self.end,
            supervisor,
            most=pool_size,
            read_host=self.read_host,
            scale_log=scale_log,
            scaled=scaled,
        )
        self._host: _Host | None = None
        self._looking = anyio.Lock(fast_acquire=True)  # guards _host

    async def take(self, spec: SandboxSpec) -> Blank:
        """Return a sandbox of this spec that is nobody's: one that stands ready, else a new one.

        Its workspace is empty, and the caller's to move. Raises as ``start`` does.
        """
        host = await self._look()
        template = await self._templates.resolve(spec, host.agent)
        ready = await self.pool.take(Shape.of(spec, template.key), spec)
        if ready is None:
            return await self._make(spec)
        ready.stood_ready = True
        return ready

    async def end(self, blank: Blank) -> None:
        """End a sandbox that becomes nobody's, with its folder."""
        with anyio.CancelScope(shield=True):
            await blank.discard()
            await anyio.to_thread.run_sync(reaper.remove_tree, blank.workspace.parent)

    async def _make(self, spec: SandboxSpec) -> Blank:
        """Start a sandbox of this spec that is nobody's; raises as ``start`` does."""
        workspace = self._places.ready / self._new_name() / "workspace"
        workspace.mkdir(mode=0o700, parents=True)  # quicker than a thread's turn
        try:
            return await self.start(spec, workspace, name=workspace.parent.name)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(reaper.remove_tree, workspace.parent)
            raise

    def _new_name(self) -> str:
        return f"{self._places.prefix}-{next(self._numbers)}"

    async def start(self, spec: SandboxSpec, workspace: Path, *, name: str | None = None) -> Blank:
        """Start a sandbox of this spec over a workspace.

        Raises:
            IsolationError: A wall cannot be had on this host, or was not proven from inside.
            LaunchError: It did not start or report in time.
            TemplateError: Its template cannot be had.
        """
        host = await self._look()
        template = await self._templates.resolve(spec, host.agent)
        rules = policy(spec.security_level)
        key = (template.key, template.preload, rules.level, spec.mounts)
        if key not in self._shared:
            if not rules.namespaces:
                folder = self._templates.store.folder
                home = await anyio.to_thread.run_sync(plain.at_home, template.view, folder)
                template = attrs.evolve(template, view=home)
            self._shared[key] = plan.template(
                template,
                spec.mounts,
                policy=rules,
                agent=host.agent,
                state=self._places.ready.parent,
                memory_counted=host.hierarchy is not None,
                uid_range=self._uid_range,
            )
        shared = self._shared[key]
        runtime, launcher = await host.launchers.find(shared, key, spec.runtime)
        hidden = name is None and runtime.clones and rules.namespaces
        name = name or self._new_name()
        try:
            async with self._hidden(workspace, name) if hidden else nullcontext(workspace) as shown:
                blank = await blanks.start(
                    name,
                    spec,
                    shown,
                    runtime=runtime,
                    launcher=launcher,
                    shared=shared,
                    hierarchy=host.hierarchy,
                    uid_range=self._uid_range,
                )
        except IsolationError as error:
            raise host.launchers.explained(error, key, spec.runtime) from error
        blank.workspace = workspace
        return blank

    @asynccontextmanager
    async def _hidden(self, workspace: Path, name: str) -> AsyncGenerator[Path, None]:
        """Name a workspace otherwise for a while: clones inherit every name their zygote read."""
        alias = self._places.ready / name
        await anyio.to_thread.run_sync(alias.symlink_to, workspace.parent)
        try:
            yield alias / workspace.name
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(alias.unlink)

    async def hand_over(
        self,
        blank: Blank,
        sandbox_id: str,
        spec: SandboxSpec,
        workspace: Path,
        on_end: Callable[[Running, Ended], Awaitable[None]],
    ) -> tuple[Running, SocketChannel]:
        """Make a sandbox that is nobody's somebody's. The caller runs ``Running.guard``.

        Args:
            blank: The sandbox; it is ended if this fails.
            sandbox_id: Whose it becomes.
            spec: How that was asked for.
            workspace: The folder of its files, which is the blank's own or has its content.
            on_end: Called when nothing of it is left.

        Returns:
            The running sandbox, and the channel to its agent, which has had its go.

        Raises:
            IsolationError: The kernel does not hold a limit that the level requires of it.
            LaunchError: It has ended meanwhile.
        """
        try:
            host = await self._look()
            held = limits.held(spec, host.hierarchy, host.no_group, in_memory=blank.in_memory)
            weak = limits.require(blank.shared.policy, held, spec.waive)
            missing = tuple(wall.name for wall in blank.walls if not wall.in_force)
            live = workspace
            if blank.in_memory:
                live = Path(f"/proc/self/fd/{blank.launched.workspace}")
                owner = blank.launched.uid or None
                await anyio.to_thread.run_sync(self._restore, sandbox_id, workspace, live, owner)
            running = Running(
                sandbox_id=sandbox_id,
                spec=spec,
                launched=blank.launched,
                launcher=blank.launcher,
                workspace=live,
                saved=workspace if blank.in_memory else None,
                tmp=None if blank.shared.policy.namespaces else plain.tmp(workspace),
                group=blank.group,
                isolation=Isolation(
                    level=spec.security_level,
                    runtime=blank.runtime.name,
                    walls=blank.walls,
                    waived=(*missing, *weak),
                ),
                limits=held,
                activity=blank.channel.activity,
                vault=self._vault,
                on_end=on_end,
            )
            memory_counted = host.hierarchy is not None
            said = plan.settings(spec, blank.shared, workspace, memory_counted=memory_counted)
            await blank.go(said)
        except BaseException as error:
            await blank.discard()
            # A refusal is an OSError too, and is told as it is.
            if isinstance(error, SandboxError) or not isinstance(error, OSError):
                raise
            raise LaunchError(
                f"sandbox {sandbox_id} ended while it started: {error} {blank.launched.stderr}",
                sandbox_id=sandbox_id,
            ) from error
        return running, blank.channel

    def _restore(self, sandbox_id: str, workspace: Path, live: Path, owner: int | None) -> None:
        """Put a workspace in memory back, of which the key to seal it again is proven to be here.

        Raises:
            ConfigError: The master key is a placeholder, can be guessed, or its file is not this
                user's alone.
            KeyNotFound: What was saved is sealed under a key whose master is not here.
            IntegrityError: What was saved was changed.
        """
        self._vault.ring(create=True)
        key = partial(self._vault.workspace_key, sandbox_id)
        saving.restore(workspace, live, owner, key, sandbox_id)

    async def read_host(self) -> HostState:
        """Return what this machine has left for sandboxes now."""
        host = await self._look()
        return await anyio.to_thread.run_sync(read_host, host.hierarchy)

    async def aclose(self) -> None:
        """End every sandbox. Idempotent."""
        await self.pool.aclose()
        if self._host is not None:
            await self._host.launchers.aclose()
        self._templates.release()

    async def _look(self) -> _Host:
        """Look at the host, once."""
        if self._host is not None:
            return self._host
        async with self._looking:
            if self._host is None:
                agent = await anyio.to_thread.run_sync(
                    payload.install, self._places.agent, self._places.library
                )
                hierarchy, no_group = await anyio.to_thread.run_sync(cgroups.find)
                launchers = Launchers(agent)
                self._host = _Host(
                    agent=agent, launchers=launchers, hierarchy=hierarchy, no_group=no_group
                )
            return self._host
