"""Fresh sandboxes for trials and scorers: made as a user's are, and deleted after."""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import attrs
from anyio.to_thread import run_sync

from sandbox_sdk.errors import ConfigError, SandboxError
from sandbox_sdk.parse import Faults, suggestion
from sandbox_sdk.parts import Parts
from sandbox_sdk.policies import policy
from sandbox_sdk.sandbox import AsyncSandbox
from sandbox_sdk.spec import parse_spec
from sandbox_sdk.values import SandboxSpec, SandboxState

log = logging.getLogger("sandbox_sdk.experiments")

_MARK = "sandbox_sdk.run"
_OPTIONS = frozenset(inspect.signature(parse_spec).parameters) - {"name", "settings"}


class FreshSandboxes:
    """Makes sandboxes that are the SDK's own: not listed, and gone with what they were for.

    Args:
        parts: The open parts of the client.
        run: The run they are for, which marks them.
    """

    def __init__(self, parts: Parts, run: str | None = None) -> None:
        self._parts = parts
        self._run = run

    def of_run(self, run: str) -> FreshSandboxes:
        """Return the same, marking what it makes as one run's."""
        return FreshSandboxes(self._parts, run)

    async def clear(self) -> None:
        """Delete what a dead driver of the run left: not yet started, lost, or ended.

        None of the run is in use, for whoever drives it now has not begun.
        """
        for info in await self._parts.backend.list(include_internal=True):
            idle = info.state is not SandboxState.RUNNING
            if idle and info.spec.internal and info.spec.metadata.get(_MARK) == self._run:
                await self._delete(info.id)

    async def prepare(self, options: Mapping[str, object], path: str = "sandbox") -> SandboxSpec:
        """Return the settings that options mean, every default filled in.

        Raises:
            ConfigError: An option is wrong; all faults at once, each below ``path``.
            TemplateError: There is no template of that name.
            IsolationError: The security level is not offered by this version.
            PolicyDenied: A rule of the operator's does not allow it.
        """
        faults = Faults()
        for name in sorted(options.keys() - _OPTIONS):
            faults.add(f"{path}.{name}", f"unknown key{suggestion(name, _OPTIONS)}")
        # Any: what the options may hold is for the parser to say.
        known: dict[str, Any] = {name: options[name] for name in options if name in _OPTIONS}
        spec: SandboxSpec | None = None
        parse = partial(parse_spec, "trial", settings=self._parts.settings, **known)
        try:
            spec = await run_sync(parse)
        except ConfigError as error:
            for line in error.faults:
                at, _, what = line.partition(": ")
                faults.add(f"{path}.{at}", what)
        faults.check()
        if spec is None:
            raise AssertionError("unreachable: faults were raised")
        policy(spec.security_level)
        spec = attrs.evolve(await self._parts.backend.pin(spec), internal=True)
        await self._parts.enforcer.refresh()
        self._parts.enforcer.create(spec)
        return spec

    @asynccontextmanager
    async def start(self, spec: SandboxSpec) -> AsyncGenerator[AsyncSandbox, None]:
        """Make a sandbox of these settings; it is deleted, files and all, with the context.

        Raises:
            StateError: It cannot be recorded.
        """
        if self._run is not None:
            spec = attrs.evolve(spec, metadata={**spec.metadata, _MARK: self._run})
        sandbox = AsyncSandbox(await self._parts.backend.create(spec), self._parts)
        try:
            yield sandbox
        finally:
            with anyio.CancelScope(shield=True):
                await self._delete(sandbox.id)

    @asynccontextmanager
    async def fresh(self, **options: object) -> AsyncGenerator[AsyncSandbox, None]:
        """Make a sandbox as ``prepare()`` and ``start()`` do, and set it up.

        Raises:
            SandboxError: It cannot be made or set up.
        """
        async with self.start(await self.prepare(options)) as sandbox:
            await sandbox.setup()
            yield sandbox

    async def _delete(self, id: str) -> None:
        try:
            await self._parts.backend.delete(id)
        except SandboxError as error:
            # What is done is done; the client's next start removes what is left.
            log.warning("sandbox.not_deleted", extra={"sandbox_id": id, "reason": str(error)})
