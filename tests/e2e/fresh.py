"""Fresh sandboxes for scorers, made by a client as any user makes them, and all that enters one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio

from sandbox_sdk import AsyncSandbox, AsyncSandboxClient
from sandbox_sdk.values import CommandResult


class Sandboxes:
    """A ``SandboxMaker`` over a client.

    Attributes:
        made: How many sandboxes it made.
        entered: Everything that went into one: contents of files, commands, standard input.
    """

    def __init__(self, client: AsyncSandboxClient) -> None:
        self.made = 0
        self.entered: list[str] = []
        self._client = client

    @asynccontextmanager
    async def fresh(
        self, *, files: Mapping[str, str | bytes], **settings: Any
    ) -> AsyncGenerator[Any, None]:
        self.made += 1
        self.entered += [repr((path, data)) for path, data in files.items()] + [repr(settings)]
        sandbox = await self._client.create_sandbox("scorer", files=files, **settings)
        try:
            async with sandbox:
                yield Watched(sandbox, self.entered)
        finally:
            with anyio.CancelScope(shield=True):
                await self._client.delete_sandbox(sandbox.id)


class Watched:
    """A sandbox that keeps what it is told to run."""

    def __init__(self, sandbox: AsyncSandbox, entered: list[str]) -> None:
        self._sandbox = sandbox
        self._entered = entered

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sandbox, name)

    async def run_command(self, command: Any, **given: Any) -> CommandResult:
        self._entered.append(repr((command, given)))
        return await self._sandbox.run_command(command, **given)
