"""Runs the SDK's own programs for local models, each in a sandbox of its own without network."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager

import anyio

from sandbox_sdk import requests
from sandbox_sdk.backends.base import Backend
from sandbox_sdk.engine.supervisor import Supervisor
from sandbox_sdk.link import Link
from sandbox_sdk.process import AsyncProcess, start
from sandbox_sdk.values import Mount, Resources, SandboxSpec


class SandboxModelHost:
    """A ``ModelHost`` over the client's own backend."""

    def __init__(self, backend: Backend, supervisor: Supervisor) -> None:
        self._backend = backend
        self._supervisor = supervisor

    @asynccontextmanager
    async def start_program(
        self,
        name: str,
        command: Sequence[str],
        *,
        mounts: Sequence[Mount],
        files: Mapping[str, bytes],
        resources: Resources,
    ) -> AsyncGenerator[AsyncProcess, None]:
        """Run ``command`` in a fresh sandbox that is deleted with the context.

        Raises:
            IsolationError: This host cannot isolate it.
            LaunchError: Its sandbox did not start.
        """
        spec = SandboxSpec(
            name=name,
            resources=resources,
            timeout=None,
            files=files,
            template="host",  # which has the program's package
            mounts=tuple(mounts),
            internal=True,
        )
        info = await self._backend.create(spec)
        try:
            await self._backend.start(info.id)
            link = await Link.open(info.id, self._backend, resources, self._supervisor)
            yield await start(link, requests.command(command, cwd=None, env=None))
        finally:
            with anyio.CancelScope(shield=True):
                await self._backend.delete(info.id)
