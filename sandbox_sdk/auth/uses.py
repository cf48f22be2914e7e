"""When keys and clients were last used, written down at most once a minute."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from sandbox_sdk.auth import credential_rows
from sandbox_sdk.auth.book import Book
from sandbox_sdk.auth.records import ClientInfo, KeyInfo
from sandbox_sdk.errors import StateError

NOTED = 60.0
"""Seconds for which a use is not written down again."""

_log = logging.getLogger("sandbox_sdk.auth")


class Uses:
    """Notes uses.

    Args:
        book: The database.
        clock: Seconds since the epoch.
    """

    def __init__(self, book: Book, clock: Callable[[], float]) -> None:
        self._book = book
        self._clock = clock
        self._noting: set[str] = set()

    async def note(self, info: KeyInfo | ClientInfo) -> None:
        """Note that a key or client was used now; what cannot be written keeps nobody out."""
        now = self._clock()
        fresh = info.used_at is not None and abs(now - info.used_at) < NOTED
        if fresh or info.id in self._noting:
            return
        self._noting.add(info.id)
        try:
            await self._book.write(partial(credential_rows.note_use, info=info, now=now))
        except StateError as error:
            _log.warning("auth.use_not_noted", extra={"credential": info.id, "why": str(error)})
        finally:
            self._noting.discard(info.id)
