"""Requests that change something that is there: what the first of each key was answered.

What such a request does, it may do again: to start what runs, or to end what has ended, changes
nothing. So a key is noted before the effect, and its answer after it; a request whose answer was
never noted, as its server was killed, is done once more.
"""

from __future__ import annotations

import sqlite3

from sandbox_sdk.errors import IdempotencyMismatch
from sandbox_sdk.store.base import Once
from sandbox_sdk.store.once import KEPT_SECONDS

OUTCOMES = """CREATE TABLE IF NOT EXISTS outcomes (
    scope TEXT NOT NULL,
    key TEXT NOT NULL,
    digest BLOB NOT NULL,
    made_at REAL NOT NULL,
    answer TEXT,
    PRIMARY KEY (scope, key)
)"""
"""The table; older SDKs, which know a database by its version, ignore it."""


def begin(connection: sqlite3.Connection, *, once: Once, now: float) -> str | None:
    """Note a request before its effect, and return what its first time was answered.

    Raises:
        IdempotencyMismatch: The first was another request.
    """
    connection.execute("DELETE FROM outcomes WHERE made_at < ?", (now - KEPT_SECONDS,))
    row = connection.execute(
        "SELECT digest, answer FROM outcomes WHERE scope = ? AND key = ?", (once.scope, once.key)
    ).fetchone()
    if row is None:
        connection.execute(
            "INSERT INTO outcomes (scope, key, digest, made_at) VALUES (?, ?, ?, ?)",
            (once.scope, once.key, once.digest, now),
        )
        return None
    digest, answer = row
    if digest != once.digest:
        raise IdempotencyMismatch(
            f"the idempotency key {once.key!r} was used for another request: make a new key for "
            "each request, and use it again for retries of the same one only"
        )
    return None if answer is None else str(answer)


def end(connection: sqlite3.Connection, *, once: Once, answer: str) -> None:
    """Note what a request was answered; an answer that is there stays."""
    connection.execute(
        "UPDATE outcomes SET answer = ? WHERE scope = ? AND key = ? AND answer IS NULL",
        (answer, once.scope, once.key),
    )
