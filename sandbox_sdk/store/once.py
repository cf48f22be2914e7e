"""Requests that take effect once, however often they come: what the first of each key made."""

from __future__ import annotations

import sqlite3

import attrs

from sandbox_sdk.errors import IdempotencyMismatch
from sandbox_sdk.store.base import Once
from sandbox_sdk.values import SandboxInfo

ONCE = """CREATE TABLE IF NOT EXISTS once (
    scope TEXT NOT NULL,
    key TEXT NOT NULL,
    digest BLOB NOT NULL,
    sandbox_id TEXT NOT NULL,
    made_at REAL NOT NULL,
    PRIMARY KEY (scope, key)
)"""
"""The table; older SDKs, which know a database by its version, ignore it."""

KEPT_SECONDS = 24 * 3600.0
"""How long the first result of a key is kept."""


def first(connection: sqlite3.Connection, info: SandboxInfo, once: Once) -> SandboxInfo | None:
    """Return what the first request of this key made, or note that this one is the first.

    Raises:
        IdempotencyMismatch: The first was another request.
    """
    connection.execute("DELETE FROM once WHERE made_at < ?", (info.created_at - KEPT_SECONDS,))
    row = connection.execute(
        "SELECT digest, sandbox_id, made_at FROM once WHERE scope = ? AND key = ?",
        (once.scope, once.key),
    ).fetchone()
    if row is None:
        connection.execute(
            "INSERT INTO once (scope, key, digest, sandbox_id, made_at) VALUES (?, ?, ?, ?, ?)",
            (once.scope, once.key, once.digest, info.id, info.created_at),
        )
        return None
    digest, sandbox_id, made_at = row
    if digest != once.digest:
        raise IdempotencyMismatch(
            f"the idempotency key {once.key!r} was used for another request: make a new key for "
            "each request, and use it again for retries of the same one only"
        )
    # What was asked for is in the request, which is the same: no secret of it is kept here.
    return attrs.evolve(info, id=sandbox_id, created_at=made_at)


def is_noted(connection: sqlite3.Connection, once: Once) -> bool:
    """Return whether a request of this key made something."""
    found = "SELECT 1 FROM once WHERE scope = ? AND key = ?"
    return connection.execute(found, (once.scope, once.key)).fetchone() is not None
