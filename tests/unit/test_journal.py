"""The journal: what was committed survives everything, what was torn harms nothing."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandbox_sdk.crypto_utils import DataKey
from sandbox_sdk.errors import StateError
from sandbox_sdk.experiments.records.events import Event
from sandbox_sdk.experiments.records.journal import Journal, read_events, scan_events
from sandbox_sdk.experiments.records.payloads import Sealed
from sandbox_sdk.experiments.records.redaction import REDACTED, Redactor
from sandbox_sdk.experiments.records.redactions import REDACTIONS, read_redactions
from sandbox_sdk.experiments.records.run_record import read_run
from sandbox_sdk.values import AttemptState

pytestmark = pytest.mark.anyio


async def new_journal(folder: Path, redactor: Redactor | None = None) -> Journal:
    return await Journal.open(folder / "events.jsonl", "run_x", redactor or Redactor())


async def test_committed_events_are_read_back_equal(tmp_path: Path) -> None:
    journal = await new_journal(tmp_path)
    told: list[tuple[Event, int, int]] = []
    journal.on_durable = lambda event, start, end: told.append((event, start, end))
    events = [
        journal.append("a", trial="t", attempt=1, text="π\n\0", number=1.5, nothing=None),
        journal.append("b", nested={"list": [1, {"x": True}]}),
    ]
    assert told == []
    await journal.commit()
    await journal.aclose()
    assert read_events(journal.path) == events
    assert [event.seq for event in events] == [1, 2]
    placed = [(each.event, each.start, each.end) for each in scan_events(journal.path)]
    assert placed == told


async def test_many_writers_share_few_syncs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs = 0
    real = os.fdatasync

    def counted(descriptor: int) -> None:
        nonlocal syncs
        syncs += 1
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", counted)
    journal = await new_journal(tmp_path)

    async def write(number: int) -> None:
        event = journal.append("n", number=number)
        await journal.commit()
        assert event in read_events(journal.path)

    async with anyio.create_task_group() as group:
        for number in range(100):
            group.start_soon(write, number)
    await journal.aclose()
    assert len(read_events(journal.path)) == 100
    assert syncs <= 3


async def test_a_cancelled_commit_loses_nothing(tmp_path: Path) -> None:
    journal = await new_journal(tmp_path)
    with anyio.CancelScope() as scope:
        scope.cancel()
        journal.append("a")
        await journal.commit()
    journal.append("b")
    await journal.commit()
    await journal.aclose()
    assert [event.type for event in read_events(journal.path)] == ["a", "b"]


async def test_a_full_disk_is_a_state_error_and_nothing_is_appended_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = await new_journal(tmp_path)
    journal.append("good")
    await journal.commit()
    real = os.write

    def half_then_full(descriptor: int, data: bytes) -> int:
        if len(data) < 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data[: len(data) - 10])

    monkeypatch.setattr(os, "write", half_then_full)
    journal.append("lost")
    with pytest.raises(StateError, match="No space left") as caught:
        await journal.commit()
    assert caught.value.errno == errno.ENOSPC
    monkeypatch.undo()
    with pytest.raises(StateError):
        journal.append("after")
    with pytest.raises(StateError):
        await journal.commit()
    await journal.aclose()
    assert [event.type for event in read_events(journal.path)] == ["good"]


async def test_a_failed_disk_is_a_state_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    journal = await new_journal(tmp_path)
    monkeypatch.setattr(os, "fdatasync", fail)
    journal.append("a")
    with pytest.raises(StateError, match="Input/output error"):
        await journal.commit()
    await journal.aclose()


async def test_a_journal_goes_on_after_its_last_good_line(tmp_path: Path) -> None:
    journal = await new_journal(tmp_path)
    journal.append("a")
    await journal.aclose()
    with journal.path.open("ab") as file:
        file.write(b'{"seq":2,"torn')
    (placed,) = scan_events(journal.path)
    again = await Journal.open(journal.path, "run_x", Redactor(), size=placed.end, events=1)
    again.append("b")
    await again.aclose()
    assert [(event.seq, event.type) for event in read_events(journal.path)] == [(1, "a"), (2, "b")]


async def test_an_existing_journal_is_never_written_over(tmp_path: Path) -> None:
    journal = await new_journal(tmp_path)
    journal.append("a")
    await journal.aclose()
    with pytest.raises(StateError):
        await new_journal(tmp_path)


async def test_secrets_never_reach_the_file(tmp_path: Path) -> None:
    journal = await new_journal(tmp_path, Redactor(["sk-canary-123456"]))
    journal.append("a", text="key sk-canary-123456!", deep=[{"sk-canary-123456": 1}])
    await journal.commit()
    await journal.aclose()
    assert b"canary" not in journal.path.read_bytes()
    (event,) = read_events(journal.path)
    (commitment,) = read_redactions(tmp_path)
    assert commitment.opens(b"sk-canary-123456")
    assert event.data == {
        "text": f"key {REDACTED}!",
        "deep": [{REDACTED: 1}],
        "redacted": [commitment.digest.hex()],
    }


async def test_what_was_redacted_can_be_proven_by_whoever_has_the_folder(tmp_path: Path) -> None:
    redactor = Redactor(["sk-canary-123456", "sk-other-123456"])
    payloads = Sealed(DataKey.generate(), "run_x")
    journal = await Journal.open(tmp_path / "events.jsonl", "run_x", redactor, payloads=payloads)
    journal.append("a", text="sk-canary-123456")
    journal.append("b", text="sk-other-123456 sk-canary-123456")
    await journal.aclose()
    size = journal.path.stat().st_size
    again = await Journal.open(
        journal.path, "run_x", redactor, payloads=payloads, size=size, events=2
    )
    again.append("c", text="sk-other-123456")
    await again.aclose()
    salts = {each.digest.hex(): each for each in read_redactions(tmp_path, payloads)}
    assert len(salts) == 3  # each driver makes its own
    named = [event.data["redacted"] for event in read_events(journal.path, payloads)]
    assert [len(each) for each in named] == [1, 2, 1]
    assert all(salts[name].opens(b"sk-canary-123456") for name in named[0])
    assert salts[named[2][0]].opens(b"sk-other-123456")
    kept = b"".join((tmp_path / name).read_bytes() for name in ("events.jsonl", REDACTIONS))
    assert not any(each.salt.hex().encode() in kept for each in salts.values())


async def test_every_torn_end_is_ignored_and_damage_before_the_end_is_told(
    tmp_path: Path,
) -> None:
    journal = await new_journal(tmp_path)
    for number in range(3):
        journal.append("n", number=number)
    await journal.commit()
    await journal.aclose()
    whole = journal.path.read_bytes()
    ends = [index for index, byte in enumerate(whole) if byte == ord("\n")]
    for length in range(len(whole) + 1):
        journal.path.write_bytes(whole[:length])
        assert len(read_events(journal.path)) == sum(end < length for end in ends)
    journal.path.write_bytes(whole + b"\0" * 4096 + b"\n\0\n")
    assert len(read_events(journal.path)) == 3
    journal.path.write_bytes(whole[: ends[0] - 5] + whole[ends[0] :])
    with pytest.raises(StateError, match="line 1"):
        read_events(journal.path)
    journal.path.write_bytes(whole[: ends[0] + 1] + whole[ends[1] + 1 :])
    with pytest.raises(StateError, match="line 2"):
        read_events(journal.path)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), json_values), st.text(), st.floats(0, 1e10))
def test_every_event_survives_its_line(data: dict[str, Any], type: str, time: float) -> None:
    event = Event(seq=1, time=time, monotonic=time, type=type, run="r", data=data)
    line = event.to_line()
    assert line.count(b"\n") == 1
    assert Event.from_line(line) == event


@given(st.binary())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_break_the_reader(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(data)
    assert read_events(path) == []


RUNS = """
import sys
from pathlib import Path
import anyio
from plain_workplace import PlainWorkplace
from sandbox_sdk.experiments.models.registry import ModelRegistry
from sandbox_sdk.experiments.run import run_experiment

SCRIPT = [{"tool_calls": [{"name": "bash", "arguments": {"command": "echo hi"}}]}, "done"]

async def main(state: Path) -> None:
    workplace = PlainWorkplace(state / "work")
    models = ModelRegistry(environ={})
    while True:
        result = await run_experiment(
            {"model": "mock/script", "prompt": "go", "tools": ["bash"],
             "parameters": {"extra_body": {"script": SCRIPT}}},
            workplace, runs_dir=state / "runs", models=models,
        )
        sys.stdout.write(f"{result.id} {result.output} {result.timings.total_time!r}\\n")
        sys.stdout.flush()

anyio.run(main, Path(sys.argv[1]))
"""


@pytest.mark.timeout(60)
def test_kill_9_at_any_time_loses_no_finished_result(tmp_path: Path) -> None:
    """Each result that a killed process had returned is rebuilt exactly from its folder."""
    finished = lost = 0
    for number in range(8):
        state = tmp_path / str(number)
        process = subprocess.Popen(
            [sys.executable, "-c", RUNS, str(state)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        )
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(random.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        # A line that the kill cut in half told nobody anything.
        lines += [line for line in process.stdout.readlines() if line.endswith(b"\n")]
        process.stdout.close()
        process.wait()
        told = {words[0]: words[1:] for words in (line.decode().split() for line in lines)}
        for run, (output, total_time) in told.items():
            record = read_run(state / "runs" / run)
            assert record.result is not None
            assert record.result.state is AttemptState.COMPLETED
            assert (record.result.output, repr(record.result.timings.total_time)) == (
                output,
                total_time,
            )
        finished += len(told)
        for folder in (state / "runs").iterdir():
            if folder.name in told or not (folder / "plan.json").exists():
                continue
            record = read_run(folder)
            assert not record.live
            if record.result is not None and record.result.state is AttemptState.LOST:
                assert record.result.status == "error"
                lost += 1
    assert finished >= 8
    assert lost >= 1


@pytest.mark.parametrize(
    "text", ["{}", '{"commitments": 7}', '{"commitments": [{"digest": "zz", "salt": ""}]}']
)
def test_damaged_commitments_are_told(tmp_path: Path, text: str) -> None:
    (tmp_path / REDACTIONS).write_text(text)
    with pytest.raises(StateError, match=f"{REDACTIONS} is damaged"):
        read_redactions(tmp_path)
