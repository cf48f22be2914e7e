"""``kill -9`` of whoever runs a batch: a later call ends it as if nothing had happened."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections import Counter
from pathlib import Path

import anyio
import pytest
from host import below, command_line, soon, status

from sandbox_sdk.backends.local import group_prefix
from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.crypto_utils import KeySource, MasterKey
from sandbox_sdk.experiments.records.journal import scan_events
from sandbox_sdk.experiments.records.run_record import RunRecord, read_run
from sandbox_sdk.experiments.records.seals import Seals
from sandbox_sdk.experiments.results.export import export_run
from sandbox_sdk.isolation.walls import cgroups
from sandbox_sdk.vault import Vault

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

HERE = Path(__file__).parent
LATEST_SECONDS = 3.0

Call = tuple[str, int]
"""What a model was asked: the task, and the number of the call."""


@pytest.mark.timeout(300)
async def test_a_batch_killed_at_any_moment(tmp_path: Path) -> None:
    """20 kills of batches of 100 trials."""
    await _kill_batches(tmp_path, kills=20, trials=100)


@pytest.mark.timeout(300)
async def test_a_sealed_batch_killed_at_any_moment(tmp_path: Path) -> None:
    """6 kills, of batches whose runs are sealed; no word of what was asked is on the disk."""
    master = MasterKey.generate().to_text()
    await _kill_batches(tmp_path, kills=6, trials=40, master=master)


@pytest.mark.soak
@pytest.mark.timeout(2 * 3600)
@pytest.mark.parametrize("master", [None, MasterKey.generate().to_text()], ids=["plain", "sealed"])
async def test_a_batch_killed_at_any_moment_for_long(tmp_path: Path, master: str | None) -> None:
    """200 kills."""
    await _kill_batches(tmp_path, kills=200, trials=100, master=master)


async def _kill_batches(
    folder: Path, *, kills: int, trials: int, master: str | None = None
) -> None:
    seed = random.SystemRandom().randrange(10**9)
    sys.stdout.write(f"seed {seed}\n")  # shown by pytest when the test fails
    chance = random.Random(seed)
    undisturbed = Batch(folder / "undisturbed", trials, master)
    assert await undisturbed.run(None) == 0
    table = undisturbed.table()
    begun = 0
    while kills:
        begun += 1
        batch = Batch(folder / str(begun), trials, master)
        while kills and await batch.run(chance.uniform(0, LATEST_SECONDS)) != 0:
            kills -= 1
            batch.look()
        assert await batch.run(None) == 0
        assert batch.table() == table
        batch.check()
        await batch.check_clean()


class Batch:
    """One batch over all processes that run it, one after the other."""

    def __init__(self, folder: Path, trials: int, master: str | None) -> None:
        folder.mkdir()
        self._master = master
        self._state = folder / "state"
        self._answers = folder / "answers"
        self._trials = trials
        self._seen: list[tuple[bytes, set[Call], Counter[Call]]] = []

    async def run(self, kill_after: float | None) -> int:
        """Run it, or go on with it, and return how its process ended; nothing may be left of it."""
        words = [sys.executable, str(HERE / "nurse.py"), sys.executable, str(HERE / "batcher.py")]
        words += [str(self._state), str(self._trials), str(self._answers)]
        environ = {
            **os.environ,
            **({"SANDBOX_ENCRYPTION_KEY": self._master} if self._master else {}),
        }
        async with await anyio.open_process(words, stderr=None, env=environ) as nurse:
            assert nurse.stdout is not None
            assert nurse.stdin is not None
            first = b""
            while not first.endswith(b"\n"):
                first += await nurse.stdout.receive(1)
            pid = int(first)
            killed = False
            if kill_after is not None:
                killed = not await soon(lambda: not _lives(pid), seconds=kill_after)
                if killed:
                    os.kill(pid, signal.SIGKILL)
            assert await soon(lambda: not _lives(pid), seconds=120)
            await soon(lambda: not _left(nurse.pid), seconds=5)
            left = _left(nurse.pid)
            for orphan in below(nurse.pid):
                os.kill(orphan, signal.SIGKILL)
            await nurse.stdin.aclose()
            await nurse.wait()
        assert left == []
        return -signal.SIGKILL if killed else 0

    def look(self) -> None:
        """Keep what is recorded and what was asked at a kill."""
        for run in self._folders():
            good, recorded = 0, set[Call]()
            record = read_run(run, self._seals)
            tasks = _tasks(record)
            for placed in scan_events(run / "events.jsonl", record.payloads):
                good, event = placed.end, placed.event
                if event.type == "model.responded" and event.trial is not None:
                    recorded.add((tasks[event.trial], event.data["call"]))
            journal = (run / "events.jsonl").read_bytes()[:good]
            self._seen.append((journal, recorded, self._asked()))

    def check(self) -> None:
        """No recorded answer was asked for again, no event is gone, no attempt is missing."""
        (run,) = self._folders()
        journal, asked = (run / "events.jsonl").read_bytes(), self._asked()
        for prefix, recorded, before in self._seen:
            assert journal.startswith(prefix)
            assert [call for call in recorded if asked[call] != before[call]] == []
        started: dict[str, list[int]] = {}
        record = read_run(run, self._seals)
        for placed in scan_events(run / "events.jsonl", record.payloads):
            event = placed.event
            if event.type == "attempt.started" and event.trial and event.attempt:
                started.setdefault(event.trial, []).append(event.attempt)
        assert len(started) == self._trials
        assert all(found == list(range(1, len(found) + 1)) for found in started.values())
        assert record.ledger.sessions >= 1
        assert record.ledger.diverged == 0
        assert (record.payloads.key_id is None) == (self._master is None)
        kept = [path for path in self._state.rglob("*") if path.is_file()]
        assert any(b"task 0" in path.read_bytes() for path in kept) == (self._master is None)

    async def check_clean(self) -> None:
        """Nothing stands but the run: no sandbox, hidden or not, no group, no mount."""
        async with AsyncSandboxClient(state_dir=self._state) as client:
            parts = await client._open()
            assert await parts.backend.list(include_internal=True) == ()
        assert list((self._state / "sandboxes").iterdir()) == []
        hierarchy, _ = cgroups.find()
        if hierarchy is not None:
            ours = f"{group_prefix(self._state)}-"
            assert [name for name in hierarchy.leftovers() if name.startswith(ours)] == []
        assert str(self._state) not in await anyio.Path("/proc/self/mountinfo").read_text()

    def table(self) -> bytes:
        """Return the run's table of outcomes; of a sealed one, that of its export."""
        (run,) = self._folders()
        if self._master is not None:
            place = self._state.with_name("export")
            run = export_run(run, place, seals=self._seals)
        return (run / "outcomes.csv").read_bytes()

    @property
    def _seals(self) -> Seals:
        return Seals(Vault(self._state / "keys", lambda: KeySource(text=self._master)))

    def _folders(self) -> list[Path]:
        return [path.parent for path in self._state.glob("runs/*/events.jsonl")]

    def _asked(self) -> Counter[Call]:
        if not self._answers.exists():
            return Counter()
        lines = (line.rpartition(" ") for line in self._answers.read_text().splitlines())
        return Counter((task, int(call)) for task, _, call in lines)


def _tasks(record: RunRecord) -> dict[str, str]:
    """Return what each trial asks, by its key."""
    return {key: f"task {record.place(index).sample[1:]}" for index, key in enumerate(record.keys)}


def _lives(pid: int) -> bool:
    return status(pid).get("State", "Z")[0] not in "ZX"


def _left(nurse: int) -> list[str]:
    return [command_line(pid) for pid in below(nurse) if _lives(pid)]
