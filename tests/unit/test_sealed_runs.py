"""Sealed runs: nothing of what they hold is readable, all of it comes back, nothing can be changed.

Scripted models answer, and plain folders stand in for sandboxes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from plain_sandboxes import BatchBench

from sandbox_sdk.crypto_utils import (
    DataKey,
    KeyRing,
    KeySource,
    MasterKey,
    Unlock,
    list_keys,
    verify_folder,
)
from sandbox_sdk.errors import IntegrityError, KeyNotFound, SandboxError, StateError
from sandbox_sdk.experiments.batches.batch_run import BatchRun
from sandbox_sdk.experiments.records.events import Event
from sandbox_sdk.experiments.records.journal import Journal, read_events, scan_events
from sandbox_sdk.experiments.records.journal_reader import JournalReader
from sandbox_sdk.experiments.records.payloads import Sealed
from sandbox_sdk.experiments.records.redaction import Redactor
from sandbox_sdk.experiments.records.run_record import read_run
from sandbox_sdk.experiments.records.seals import Seals
from sandbox_sdk.experiments.results.run_result import RunResult
from sandbox_sdk.experiments.results.tables import outcome_rows
from sandbox_sdk.vault import Vault

pytestmark = pytest.mark.anyio

MASTER = MasterKey.generate().to_text()
CANARIES = {
    name: f"canary-{name}-7b1d"
    for name in ("prompt", "answer", "code", "output", "file", "target", "kept", "system", "name")
}
SHELL = (
    f"echo {CANARIES['code']} > /dev/null; echo -n {CANARIES['kept']} > {CANARIES['name']}; "
    "for n in $(seq 3000); do echo "
    + CANARIES["output"].replace("output", "'output'")  # said in the output alone
    + "; done"
)
CALL = {"tool_calls": [{"name": "bash", "arguments": {"command": SHELL}}]}


def config(**more: Any) -> dict[str, Any]:
    """Return a batch of four trials with a canary in everything that is given to it or made."""
    rows = [
        {"id": f"s{n}", "input": f"{CANARIES['prompt']} {n}", "target": CANARIES["target"]}
        for n in range(4)
    ]
    return {
        **{"model": "mock/script", "prompt": "{input}", "system": CANARIES["system"]},
        **{"dataset": rows, "tools": ["bash"], "files": {"given": CANARIES["file"]}},
        **{"artifacts": [CANARIES["name"]], "scorers": ["exact"]},
        "parameters": {"extra_body": {"script": [CALL, CANARIES["answer"]]}},
        **more,
    }


def ring_of(folder: Path, key: str | None = MASTER) -> KeyRing:
    """Return the keys of a state folder."""
    ring = KeyRing.open(folder / "keys", KeySource(text=key))
    assert ring is not None
    return ring


def seals(folder: Path, key: str | None = MASTER) -> Seals:
    """Return what one client seals with, as a new process would have it."""
    (folder / "keys").mkdir(exist_ok=True, parents=True)
    return Seals(Vault(folder / "keys", lambda: KeySource(text=key)))


def bench(folder: Path, key: str | None = MASTER) -> BatchBench:
    return BatchBench(folder, seals=seals(folder, key))


def found(state: Path) -> set[str]:
    """Return the canaries that lie in the runs of a state folder, in a name or in a file."""
    paths = [path for path in (state / "runs").rglob("*") if path.is_file()]
    texts = [str(path).encode() + path.read_bytes() for path in paths]
    return {name for name, text in CANARIES.items() if any(text.encode() in t for t in texts)}


def hexes(state: Path) -> bytes:
    """Return all names and all content of the runs of a state folder."""
    paths = list((state / "runs").rglob("*"))
    return b"\n".join(str(p).encode() + (p.read_bytes() if p.is_file() else b"") for p in paths)


async def made(folder: Path, key: str | None = MASTER, **more: Any) -> RunResult:
    result = await bench(folder, key).run(config(**more))
    assert result.status == "complete"
    return result


async def test_nothing_that_a_run_holds_can_be_read_in_its_folder(tmp_path: Path) -> None:
    result = await made(tmp_path)
    assert found(tmp_path) == set()
    told = result.trials[0].result
    assert told is not None
    assert told.output == CANARIES["answer"]
    assert len(told.artifacts) == 2


async def test_the_search_finds_all_of_it_where_it_is_not_sealed(tmp_path: Path) -> None:
    """The control."""
    await made(tmp_path, None)
    assert found(tmp_path) == set(CANARIES)


async def test_no_plain_digest_of_what_a_run_holds_is_in_its_folder(tmp_path: Path) -> None:
    known = {hashlib.sha256(text.encode()).hexdigest() for text in CANARIES.values()}
    one = await made(tmp_path / "plain", None)
    known |= {trial.key for trial in one.trials}
    plan = read_run(one.folder).plan
    known |= {plan["digest"], plan["config_digest"], plan["dataset"]["digest"]}
    known |= {each["digest"] for each in plan["config"]["scorers"]}
    for event in read_events(one.folder / "events.jsonl"):
        known |= {event.data[name] for name in ("digest", "request") if name in event.data}
    control = hexes(tmp_path / "plain")
    assert sum(digest.encode() in control for digest in known) > 20
    await made(tmp_path / "sealed")
    kept = hexes(tmp_path / "sealed")
    assert [digest for digest in known if digest.encode() in kept] == []


async def test_a_sealed_run_tells_the_same_as_a_plain_one(tmp_path: Path) -> None:
    plain = read_run((await made(tmp_path / "plain", None, max_concurrency=1)).folder)
    folder = (await made(tmp_path / "sealed", max_concurrency=1)).folder
    sealed = read_run(folder, seals(tmp_path / "sealed"))
    assert list(outcome_rows(sealed)) == list(outcome_rows(plain))
    assert [e.type for e in sealed.events] == [e.type for e in plain.events]
    assert sealed.keys == plain.keys
    assert sealed.plan["config"] == plain.plan["config"]
    assert (sealed.lock or {}).keys() == (plain.lock or {}).keys()
    results = zip(sealed.results(), plain.results(), strict=True)
    assert all(one[2].messages == other[2].messages for one, other in results)


async def test_what_everybody_may_read(tmp_path: Path) -> None:
    result = await made(tmp_path, name="nightly")
    lines = [
        json.loads(line) for line in (result.folder / "events.jsonl").read_bytes().split(b"\n")[:-1]
    ]
    assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
    ended = [line["data"] for line in lines if line["type"] == "attempt.finished"]
    assert [data["state"] for data in ended] == ["completed"] * 4
    answers = [line["data"] for line in lines if line["type"] == "model.responded"]
    assert all(data["usage"]["requests"] == 1 and data["duration"] >= 0 for data in answers)
    scores = [line["data"] for line in lines if line["type"] == "score"]
    assert [data["value"] for data in scores] == [0.0] * 4
    assert len({line["trial"] for line in lines if line["trial"]}) == 4
    (info,) = bench(tmp_path, None).batches.every()  # needs no key
    assert (info.name, info.planned, info.models) == ("nightly", 4, ("mock/script",))
    (key,) = [key for key in list_keys(tmp_path / "keys") if key.name == info.id]
    assert info.key_id == key.id


async def begun(folder: Path, key: str | None = MASTER) -> str:
    """Begin the batch, end it after a trial, and return the run's id."""
    run = await bench(folder, key).open(config(max_concurrency=1))
    assert isinstance(run, BatchRun)

    async with anyio.create_task_group() as group:
        group.start_soon(run.drive)
        async for _ in run.endings():
            run.cancel_rest()
    return run.run.id


async def test_a_sealed_run_goes_on_sealed(tmp_path: Path) -> None:
    begun_id = await begun(tmp_path)
    result = await made(tmp_path, max_concurrency=1)
    assert (result.id, result.status) == (begun_id, "complete")
    assert result.kept >= 1
    assert found(tmp_path) == set()
    again = await bench(tmp_path).open(config(max_concurrency=1))
    assert isinstance(again, RunResult)  # finished


async def test_a_run_that_began_plain_goes_on_plain(tmp_path: Path) -> None:
    begun_id = await begun(tmp_path, None)
    result = await made(tmp_path, MASTER, max_concurrency=1)
    assert (result.id, result.status) == (begun_id, "complete")
    assert found(tmp_path) == set(CANARIES)
    assert len(read_events(result.folder / "events.jsonl")) > 10


async def test_without_the_key_a_run_is_refused_and_stays(tmp_path: Path) -> None:
    begun_id = await begun(tmp_path)
    before = hexes(tmp_path)
    key = next(key for key in list_keys(tmp_path / "keys") if key.name == begun_id)
    for other in (None, MasterKey.generate().to_text()):
        with pytest.raises(KeyNotFound, match=key.id) as refused:
            bench(tmp_path, other).batches.get(begun_id)
        assert refused.value.key_id == key.id
        with pytest.raises(KeyNotFound, match=f"{key.id}|{key.master_id}"):
            await bench(tmp_path, other).open(config(max_concurrency=1), run=begun_id)
        # Whether it was begun cannot be told: it is not begun again.
        with pytest.raises(KeyNotFound, match=key.master_id):
            await bench(tmp_path, other).open(config(max_concurrency=1))
        assert [info.id for info in bench(tmp_path, other).batches.every()] == [begun_id]
    assert hexes(tmp_path) == before
    assert (await made(tmp_path, max_concurrency=1)).id == begun_id


async def test_without_any_key_a_new_run_is_begun_plain_if_that_is_said(tmp_path: Path) -> None:
    await made(tmp_path)
    result = await bench(tmp_path, None).run(config(), run="new")
    assert read_run(result.folder).payloads.key_id is None


async def test_an_erased_key_makes_a_run_unreadable(tmp_path: Path) -> None:
    result = await made(tmp_path)
    assert ring_of(tmp_path).erase(result.id)
    with pytest.raises(KeyNotFound, match="erased"):
        bench(tmp_path).batches.get(result.id)
    assert [info.id for info in bench(tmp_path).batches.every()] == [result.id]


async def test_a_rotation_changes_no_run(tmp_path: Path) -> None:
    result = await made(tmp_path)
    before = hexes(tmp_path)
    new = MasterKey.generate().to_text()
    assert ring_of(tmp_path).rotate(Unlock.parse(new)) == 2
    assert hexes(tmp_path) == before
    assert bench(tmp_path, new).batches.get(result.id).states == {"completed": 4}


@pytest.mark.parametrize(
    ("before", "after"),
    [(MASTER, MASTER), (None, MASTER), (MASTER, None)],
    ids=["sealed, sealed", "plain, sealed", "sealed, plain"],
)
async def test_trials_are_taken_from_a_run_however_it_is_kept(
    tmp_path: Path, before: str | None, after: str | None
) -> None:
    first = await made(tmp_path, before)
    if after is None:
        # Where the key is there to read the one, the other is begun sealed too: begun before.
        shutil.move(tmp_path / "keys", tmp_path / "other")
        begun_id = await begun(tmp_path, None)
        shutil.rmtree(tmp_path / "keys")
        shutil.move(tmp_path / "other", tmp_path / "keys")
        choice = {"run": begun_id, "reuse": first.id}
    else:
        choice = {"run": "new", "reuse": first.id}
    result = await bench(tmp_path).run(config(max_concurrency=1), **choice)
    assert result.status == "complete"
    assert sum(trial.reused == first.id for trial in result.trials) >= 3
    record = read_run(result.folder, seals(tmp_path))
    assert (record.payloads.key_id is None) == (after is None)
    exported = result.export(tmp_path / "out")  # reads and proves every artifact
    assert len(list((exported / "artifacts").rglob("*"))) > 2


async def test_an_export_is_plain_and_signed(tmp_path: Path) -> None:
    plain = (await made(tmp_path / "plain", None)).export(tmp_path / "out" / "plain")
    result = await made(tmp_path / "sealed")
    sealed = result.export(tmp_path / "out" / "sealed")
    names = {str(path.relative_to(plain)) for path in plain.rglob("*")}
    signed = {str(path.relative_to(sealed)) for path in sealed.rglob("*")}
    assert signed - names == {"MANIFEST.json.sig"}
    for name in ("outcomes.csv", "samples.jsonl"):
        assert (sealed / name).read_bytes() == (plain / name).read_bytes()
    assert len(read_events(sealed / "events.jsonl")) == len(read_events(plain / "events.jsonl"))
    public = ring_of(tmp_path / "sealed").signing_key().public
    assert verify_folder(sealed, [public]).status == "verified"
    assert verify_folder(plain).status == "unsigned"
    # The same bytes again: what was exported is left as it is.
    assert result.export(tmp_path / "out" / "sealed") == sealed


def _lines(path: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(change(lines)))


def _flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def _letter(path: Path, at: int) -> None:
    """Exchange a letter for another: what is no text of letters is the half line of a crash."""
    data = bytearray(path.read_bytes())
    data[at] = ord("B" if data[at] == ord("A") else "A")
    path.write_bytes(data)


def _state(line: bytes) -> bytes:
    assert b'"state":"completed"' in line
    return line.replace(b'"state":"completed"', b'"state":"cancelled"')


def _swapped(lines: list[bytes]) -> list[bytes]:
    """Exchange the sealed halves of two events."""
    (a, mark, b), (c, _, d) = (line.rpartition(b',"sealed":') for line in lines[3:5])
    return [*lines[:3], a + mark + d, c + mark + b, *lines[5:]]


CHANGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "two events": ("events.jsonl", lambda p: _lines(p, lambda x: [x[0], x[2], x[1], *x[3:]])),
    "two halves": ("events.jsonl", lambda p: _lines(p, _swapped)),
    "an event left out": ("events.jsonl", lambda p: _lines(p, lambda x: [*x[:2], *x[3:]])),
    "an event of clear text": (
        "events.jsonl",
        lambda p: _lines(p, lambda x: [x[0].rpartition(b',"sealed":')[0] + b"}\n", *x[1:]]),
    ),
    "an open field": (
        "events.jsonl",
        lambda p: _lines(p, lambda x: [*x[:-2], _state(x[-2]), x[-1]]),
    ),
    "a sealed byte": (
        "events.jsonl",
        lambda p: _lines(p, lambda x: [x[0][:-40] + bytes([x[0][-40] ^ 1]) + x[0][-39:], *x[1:]]),
    ),
    "the last event": ("events.jsonl", lambda p: _letter(p, -30)),
    "the plan": ("plan.json", lambda p: p.write_bytes(p.read_bytes().replace(b": 4,", b": 5,"))),
    "the sealed plan": ("plan.json", lambda p: _flip(p, -400)),
    "the keys": ("trials.txt", lambda p: _flip(p, -1)),
    "the keys cut short": ("trials.txt", lambda p: p.write_bytes(p.read_bytes()[:-40])),
    "the samples": ("samples.jsonl", lambda p: _flip(p, 200)),
    "samples as keys": ("samples.jsonl", lambda p: shutil.copy(p.with_name("trials.txt"), p)),
}


@pytest.mark.parametrize("what", CHANGES)
async def test_what_was_changed_is_refused_by_its_name(tmp_path: Path, what: str) -> None:
    result = await made(tmp_path, max_concurrency=1)
    name, change = CHANGES[what]
    change(result.folder / name)
    with pytest.raises((IntegrityError, StateError), match=name) as refused:
        read_run(result.folder, seals(tmp_path))
    assert isinstance(refused.value, SandboxError)


@pytest.mark.parametrize("name", ["events.jsonl", "plan.json", "trials.txt", "lock.json"])
async def test_a_file_of_another_run_is_refused(tmp_path: Path, name: str) -> None:
    one = await made(tmp_path)
    other = await bench(tmp_path).run(config(), run="new")
    shutil.copy(one.folder / name, other.folder / name)
    with pytest.raises((IntegrityError, StateError), match=name):
        read_run(other.folder, seals(tmp_path)).lock  # noqa: B018 - read at this moment


async def test_an_artifact_that_was_changed_or_exchanged_is_refused(tmp_path: Path) -> None:
    result = await made(tmp_path)
    one, other = sorted(path for path in result.folder.rglob("artifacts/sealed/*/*"))[:2]
    kept = one.read_bytes()
    for bad in (other.read_bytes(), kept[:-1], kept[:-1] + b"x"):
        one.write_bytes(bad)
        with pytest.raises(IntegrityError, match=one.name):
            result.export(tmp_path / "out")
    one.write_bytes(kept)
    result.export(tmp_path / "out")


async def test_a_sealed_journal_cut_anywhere_ends_with_what_was_made_durable(
    tmp_path: Path,
) -> None:
    payloads = Sealed(DataKey.generate(), "run_x")
    path = tmp_path / "events.jsonl"
    ends = [0]
    journal = await Journal.open(path, "run_x", Redactor(), payloads=payloads)
    for size in (1, 3, 2):
        for number in range(size):
            journal.append("a", trial="t", text=f"{size} {number}")
        await journal.commit()
        ends.append(path.stat().st_size)
    await journal.aclose()
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        whole = max(end for end in ends if end <= length)
        placed = list(scan_events(path, payloads))
        assert (placed[-1].end if placed else 0) == whole
        assert len(placed) in (0, 1, 4)
    path.write_bytes(data[: ends[2] + 5])
    again = await Journal.open(path, "run_x", Redactor(), payloads=payloads, size=ends[2], events=4)
    again.append("b")
    await again.aclose()
    assert [event.type for event in read_events(path, payloads)] == [*"aaaa", "b"]


async def test_any_event_of_a_sealed_journal_is_read_by_its_place(tmp_path: Path) -> None:
    payloads = Sealed(DataKey.generate(), "run_x")
    path = tmp_path / "events.jsonl"
    told: list[tuple[Event, int, int]] = []
    journal = await Journal.open(path, "run_x", Redactor(), payloads=payloads)
    journal.on_durable = lambda event, start, end: told.append((event, start, end))
    for size in (1, 400, 2, 900, 1):  # more in a group than is looked back at once
        for number in range(size):
            journal.append("a", trial=f"t{number % 3}", usage={"n": number}, text="x" * number)
        await journal.commit()
    await journal.aclose()
    reader = JournalReader(path, payloads)
    for event, start, _ in told[::7]:
        assert reader.at(start) == event
    first, last = told[100][1], told[1200][2]
    found = list(reader.between(first, last, "t1"))
    assert found == [event for event, _, _ in told[100:1201] if event.trial == "t1"]
    with pytest.raises(StateError, match="byte 5"):
        reader.at(5)
    assert [each.event for each in scan_events(path, payloads)] == [event for event, _, _ in told]
    with pytest.raises(StateError, match="line 1"):  # it is no plain one
        read_events(path)
