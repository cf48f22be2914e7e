"""The database of a server's credentials, and the task that notices what others revoke in it."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import anyio

from sandbox_sdk.auth import tables
from sandbox_sdk.store.writer import Writer

FILE = "auth.db"
"""The name of the database's file, in the state folder's ``auth``."""

LOOK_SECONDS = 0.25
"""How often a waiting process looks whether another one revoked something."""

T = TypeVar("T")
Call = Callable[[sqlite3.Connection], T]


class Book:
    """One database on two connections: a request that is looked up waits for no other's commit.

    Made by ``open``. What a write changed is seen by every read that begins after it returned.
    """

    def __init__(self, writer: Writer, reader: Writer) -> None:
        self._writer = writer
        self._reader = reader
        self._seen = 0
        self._looking = False
        self._written = anyio.Event()  # for the task that looks
        self._moved = anyio.Event()  # for those that wait for it

    @classmethod
    async def open(cls, folder: Path) -> Book:
        """Open the database in a folder, and make it if there is none.

        Raises:
            StateError: It is damaged, of a newer version, or cannot be read or written.
        """
        writer, reader = Writer(folder / FILE), Writer(folder / FILE)
        await writer.start(tables.migrate)
        try:
            await reader.start(tables.migrate)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await writer.stop(_nothing)
            raise
        return cls(writer, reader)

    async def read(self, call: Call[T]) -> T:
        """Return what a call that changes nothing returns.

        Raises:
            StateError: The database cannot be read.
            SandboxClosed: The book is closed.
        """
        return await self._reader.run(call, writes=False)

    async def write(self, call: Call[T]) -> T:
        """Return what a call returns, once what it changed is durable.

        Raises:
            StateError: The database cannot be written.
            SandboxClosed: The book is closed.
        """
        done = await self._writer.run(call, writes=True)
        self._written.set()
        self._written = anyio.Event()
        return done

    async def revocations(self) -> int:
        """Return a number that rises with every revocation, whichever process makes it."""
        return await self.read(tables.revocations)

    async def revoked_since(self, seen: int) -> int:
        """Wait until ``revocations()`` is another number, and return it.

        However many tasks wait, one at a time looks, every ``LOOK_SECONDS`` and whenever this
        process has written.
        """
        while self._seen == seen:
            if self._looking:
                await self._moved.wait()
                continue
            async with self._looks():
                while self._seen == seen:
                    self._seen = await self.revocations()
                    if self._seen == seen:
                        with anyio.move_on_after(LOOK_SECONDS):
                            await self._written.wait()
        return self._seen

    async def aclose(self) -> None:
        """Close both connections; again is nothing."""
        await self._reader.stop(_nothing)
        await self._writer.stop(_nothing)

    @asynccontextmanager
    async def _looks(self) -> AsyncGenerator[None]:
        """Be the one that looks; when it leaves, another of those who wait takes its place."""
        self._looking = True
        try:
            yield
        finally:
            self._looking = False
            self._moved.set()
            self._moved = anyio.Event()


def _nothing(connection: sqlite3.Connection) -> None:
    """Leave the connection as it is; it is closed next."""
