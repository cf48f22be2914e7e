"""Runs of sandboxes that live on a server: their journals are here, their sandboxes are not."""

from __future__ import annotations

import sqlite3

FAR_RUNS = """CREATE TABLE IF NOT EXISTS far_runs (
    id TEXT PRIMARY KEY,
    sandbox_id TEXT NOT NULL
)"""
"""The table; older SDKs, which know a database by its version, ignore it."""


def insert(connection: sqlite3.Connection, *, run_id: str, sandbox_id: str) -> None:
    """Record that a run belongs to a sandbox elsewhere."""
    connection.execute("INSERT INTO far_runs (id, sandbox_id) VALUES (?, ?)", (run_id, sandbox_id))


def select(connection: sqlite3.Connection, *, sandbox_id: str) -> tuple[str, ...]:
    """Return the ids of a sandbox's runs, oldest first."""
    query = "SELECT id FROM far_runs WHERE sandbox_id = ? ORDER BY id"
    return tuple(run_id for (run_id,) in connection.execute(query, (sandbox_id,)))


def delete(connection: sqlite3.Connection, *, sandbox_id: str) -> None:
    """Forget a sandbox's runs."""
    connection.execute("DELETE FROM far_runs WHERE sandbox_id = ?", (sandbox_id,))
