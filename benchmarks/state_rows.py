"""Durable records per second: the store's group commit against one commit per row.

Run: ``python benchmarks/state_rows.py [folder]``. The folder decides which disk is measured.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

import anyio

from sandbox_sdk.store.folders import StateFolders
from sandbox_sdk.store.state import SQLiteStore
from sandbox_sdk.values import SandboxInfo, SandboxSpec, new_id
from sandbox_sdk.wire import to_json

ROWS = 2000


async def through_the_store(folder: Path, waiting: int) -> float:
    """Return rows per second when this many callers wait at a time."""
    store = await SQLiteStore.open(StateFolders.open(folder))
    infos = [SandboxInfo(id=new_id("sb"), spec=SandboxSpec(name="x")) for _ in range(ROWS)]

    async def insert(mine: list[SandboxInfo]) -> None:
        for info in mine:
            await store.insert_sandbox(info)

    began = time.perf_counter()
    async with anyio.create_task_group() as tasks:
        for number in range(waiting):
            tasks.start_soon(insert, infos[number::waiting])
    seconds = time.perf_counter() - began
    await store.aclose()
    return ROWS / seconds


def one_commit_per_row(folder: Path) -> float:
    """Return rows per second of plain ``sqlite3``, as durable, without any SDK."""
    connection = sqlite3.connect(folder / "plain.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE rows (id TEXT PRIMARY KEY, spec TEXT)")
    spec = json.dumps(to_json(SandboxSpec(name="x")))
    began = time.perf_counter()
    for _ in range(ROWS):
        connection.execute("INSERT INTO rows VALUES (?, ?)", (new_id("sb"), spec))
    seconds = time.perf_counter() - began
    connection.close()
    return ROWS / seconds


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as name:
        folder = Path(name)
        reference = one_commit_per_row(folder)
        print(f"{'durable rows/s':<34}{'rows/s':>10}{'ratio':>8}")
        print(f"{'sqlite3, one commit per row':<34}{reference:>10.0f}{1:>8.1f}")
        for waiting in (1, 16, 256):
            ours = anyio.run(through_the_store, folder / str(waiting), waiting)
            print(f"{f'store, {waiting} callers':<34}{ours:>10.0f}{ours / reference:>8.1f}")


if __name__ == "__main__":
    main()
