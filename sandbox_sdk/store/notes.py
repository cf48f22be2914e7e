"""What is remembered from one client to the next beside records: texts by kind and name."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

NOTES = """CREATE TABLE IF NOT EXISTS notes (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (kind, name)
)"""
"""The table; it was added to a database whose version older SDKs know, and which ignore it."""


def select(connection: sqlite3.Connection, *, kind: str) -> dict[str, str]:
    """Return name -> text of one kind."""
    return dict(connection.execute("SELECT name, text FROM notes WHERE kind = ?", (kind,)))


def change(
    connection: sqlite3.Connection,
    *,
    kind: str,
    name: str,
    new: Callable[[str | None], str | None],
) -> None:
    """Replace one text by what ``new`` makes of it; ``None`` stands for no text, both ways."""
    found = connection.execute(
        "SELECT text FROM notes WHERE kind = ? AND name = ?", (kind, name)
    ).fetchone()
    text = new(None if found is None else found[0])
    if text is None:
        connection.execute("DELETE FROM notes WHERE kind = ? AND name = ?", (kind, name))
    else:
        connection.execute("INSERT OR REPLACE INTO notes VALUES (?, ?, ?)", (kind, name, text))
