"""Durable records per second: the store's group commit against one commit per row.

``--state-dir`` decides which disk is measured; ``--count`` is the number of rows at a time.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import anyio
from bench.measure import Case, Run, main
from bench.references import blocking
from bench.table import Promise

from sandbox_sdk.store.folders import StateFolders
from sandbox_sdk.store.state import SQLiteStore
from sandbox_sdk.values import SandboxInfo, SandboxSpec, new_id
from sandbox_sdk.wire import to_json

COUNT = 2000
ROUNDS = 3
WAITING = (1, 16, 256)
PLAIN = "sqlite3, one commit per row"


async def through_the_store(folder: Path, rows: int, waiting: int) -> float:
    """Return rows per second when this many callers wait at a time."""
    store = await SQLiteStore.open(StateFolders.open(folder))
    infos = [SandboxInfo(id=new_id("sb"), spec=SandboxSpec(name="x")) for _ in range(rows)]

    async def insert(mine: list[SandboxInfo]) -> None:
        for info in mine:
            await store.insert_sandbox(info)

    began = time.perf_counter()
    async with anyio.create_task_group() as tasks:
        for number in range(waiting):
            tasks.start_soon(insert, infos[number::waiting])
    seconds = time.perf_counter() - began
    await store.aclose()
    return rows / seconds


def one_commit_per_row(folder: Path, rows: int) -> float:
    """Return rows per second of plain ``sqlite3``, as durable, without any SDK."""
    connection = sqlite3.connect(folder / "plain.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE rows (id TEXT PRIMARY KEY, spec TEXT)")
    spec = json.dumps(to_json(SandboxSpec(name="x")))
    began = time.perf_counter()
    for _ in range(rows):
        connection.execute("INSERT INTO rows VALUES (?, ?)", (new_id("sb"), spec))
    seconds = time.perf_counter() - began
    connection.close()
    return rows / seconds


async def body(run: Run) -> list[Promise]:
    """Measure all ways in turn, each time in a new folder."""
    labels = {f"store, {waiting} callers": waiting for waiting in WAITING}

    def plain() -> float:
        with tempfile.TemporaryDirectory(dir=run.state) as folder:
            return one_commit_per_row(Path(folder), run.count)

    async def store(waiting: int) -> float:
        with tempfile.TemporaryDirectory(dir=run.state) as folder:
            return await through_the_store(Path(folder), run.count, waiting)

    cases = [
        Case(label=PLAIN, measure=blocking(plain)),
        *(Case(label=label, measure=partial(store, each)) for label, each in labels.items()),
    ]
    await run.alternate(cases, rounds=ROUNDS)
    return [run.promise(label, unit="/s", against=PLAIN, more=True) for label in labels]


if __name__ == "__main__":
    sys.exit(main("state_rows", __doc__, COUNT, body))
