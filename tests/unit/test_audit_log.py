"""How a log is written: by several processes, on disks that fail, by processes that are killed."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from auditing import Bench, check, key_of

from sandbox_sdk.audit.events import DROPPED, PRUNED, RECOVERED, Entry, Line
from sandbox_sdk.audit.log import FOLDER
from sandbox_sdk.audit.retention import prune
from sandbox_sdk.audit.segments import Segments, segment_paths
from sandbox_sdk.audit.writer import MOST_WAITING, Pace
from sandbox_sdk.errors import IntegrityError, StateError

APPENDER = Path(__file__).with_name("audit_appender.py")


def lines(state: Path) -> list[Line]:
    return [
        Line.parse(raw)
        for path in segment_paths(state / FOLDER)
        for raw in path.read_bytes().splitlines(keepends=True)
    ]


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def start(state: Path, count: int, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(APPENDER), str(state), str(count), *more],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def said(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == f"{word}\n"


def append_together(state: Path, processes: int, count: int) -> None:
    """Have processes append at once, and look at what came of it."""
    key_of(state)
    started = [start(state, count) for _ in range(processes)]
    for process in started:
        said(process, "ready")
    for process in started:
        go(process)
    for process in started:
        process.communicate()
        assert process.returncode == 0
    found = check(state)
    assert found.ok
    assert found.signed == found.last
    written = [line for line in lines(state) if line.type == "test.event"]
    assert len(written) == processes * count


@pytest.mark.slow
def test_eight_processes_append_to_one_chain(tmp_path: Path) -> None:
    append_together(tmp_path, 8, 100)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_eight_processes_append_ten_thousand_events_each(tmp_path: Path) -> None:
    append_together(tmp_path, 8, 10_000)


def test_what_is_durable_is_there_after_a_kill_and_signed_by_the_next(tmp_path: Path) -> None:
    """Killed between a write and its checkpoint, with half a line of the next write."""
    process = start(tmp_path, 20, "stay")
    said(process, "ready")
    go(process)
    said(process, "written")
    process.kill()
    process.communicate()
    (path,) = segment_paths(tmp_path / FOLDER)
    assert check(tmp_path).status == "unsigned"
    with path.open("ab") as file:
        file.write(b'{"specversion":"1.0","id":"000')
    assert check(tmp_path).last == 21
    bench = Bench(tmp_path)
    bench.write(1)
    bench.writer.close()
    found = check(tmp_path)
    assert (found.status, found.last) == ("verified", found.signed)
    (recovered,) = [line for line in lines(tmp_path) if line.type == RECOVERED]
    assert recovered.data["bytes"] == 30
    assert len([line for line in lines(tmp_path) if line.type == "test.event"]) == 21


def test_a_segment_that_was_being_begun_is_begun_anew(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.write(3)
    bench.writer.close()
    assert bench.newest is not None
    for left in (b"", b'{"specversion"'):
        size = lines(tmp_path)[-1].sequence
        (tmp_path / FOLDER / f"{size + 1:020}.jsonl").write_bytes(left)
        bench = Bench(tmp_path, known=bench.newest)
        bench.write(1)
        bench.writer.close()
        assert check(tmp_path).ok


def test_a_log_has_segments_and_each_begins_after_a_checkpoint(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Pace(events=1000, segment_bytes=3000))
    bench.write_apart(40)
    bench.writer.close()
    paths = segment_paths(bench.folder)
    assert len(paths) > 3
    for path in paths[:-1]:
        last = path.read_bytes().splitlines(keepends=True)[-1]
        assert Line.parse(last).type.endswith("audit.checkpoint")
    assert check(tmp_path).ok


def test_a_checkpoint_comes_after_a_time_without_another_event(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Pace(seconds=0.05))
    bench.write(1)
    wait_for(lambda: bench.newest)
    assert check(tmp_path).ok
    bench.writer.close()
    assert len(lines(tmp_path)) == 3


def test_an_event_nobody_waits_for_is_there_soon_with_others_in_one_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path)
    bench.write(1)
    syncs: list[int] = []
    real = os.fdatasync

    def sync(descriptor: int) -> None:
        syncs.append(descriptor)
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", sync)
    for number in range(5):
        bench.writer.submit(Entry(type="test.event", data={"number": number}))
    assert not syncs
    wait_for(lambda: len(lines(tmp_path)) >= 7)
    assert len(syncs) <= 3  # of the events, and of the checkpoint that was due
    bench.writer.close()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_disk_that_fails_is_told_and_what_was_to_be_written_is_written_later(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path)
    bench.write(2)
    real = os.pwrite

    def fail(descriptor: int, data: bytes, offset: int) -> int:
        real(descriptor, data[:7], offset)  # half of it comes to the disk, as on a full one
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "pwrite", fail)
    with pytest.raises(StateError, match="audit log") as caught:
        bench.write(1)
    assert caught.value.errno == number
    assert bench.writer.failure is caught.value
    assert check(tmp_path).last == 3
    monkeypatch.setattr(os, "pwrite", real)
    wait_for(lambda: bench.writer.failure is None)
    bench.write(1)
    bench.writer.close()
    assert check(tmp_path).ok
    assert len([line for line in lines(tmp_path) if line.type == "test.event"]) == 4


def test_a_log_whose_first_write_fails_is_begun_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int, data: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    bench = Bench(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", fail)
        for _ in range(2):
            with pytest.raises(StateError):
                bench.write(1)
    bench.writer.close()
    assert check(tmp_path).ok
    assert [line.type for line in lines(tmp_path)][1:3] == ["test.event"] * 2


def test_a_segment_whose_first_write_fails_is_begun_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, Pace(events=7, segment_bytes=2000))
    real = os.pwrite

    def fail(descriptor: int, data: bytes, offset: int) -> int:
        if b"audit.segment" in data:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data, offset)

    bench.write(1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", fail)
        bench.write(10)
        wait_for(lambda: bench.writer.failure)
    wait_for(lambda: bench.writer.failure is None)
    bench.write(10)
    bench.writer.close()
    assert check(tmp_path).ok
    assert len(segment_paths(bench.folder)) > 1


def test_a_sync_that_fails_leaves_none_of_its_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path)
    bench.write(1)

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(StateError):
            bench.write(1)
        assert len(lines(tmp_path)) == 2
    wait_for(lambda: bench.writer.failure is None)
    bench.writer.close()
    assert check(tmp_path).ok


def test_of_too_many_events_that_cannot_be_written_the_number_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, Pace(seconds=3600.0))
    bench.write(1)

    def fail(descriptor: int, data: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", fail)
        for number in range(MOST_WAITING + 5):
            bench.writer.submit(Entry(type="test.event", data={"number": number}))
        wait_for(lambda: bench.writer.failure)
    bench.writer.close()
    assert check(tmp_path).ok
    written = lines(tmp_path)
    (dropped,) = [line for line in written if line.type == DROPPED]
    kept = [line for line in written if line.type == "test.event"]
    assert len(kept) - 1 + dropped.data["count"] == MOST_WAITING + 5
    assert len(kept) - 1 == MOST_WAITING


def spoil_a_line(folder: Path) -> None:
    path = segment_paths(folder)[-1]
    path.write_bytes(path.read_bytes().replace(b'"number":1', b'"number":7'))


def cut_it(folder: Path) -> None:
    path = segment_paths(folder)[-1]
    kept = path.read_bytes().splitlines(keepends=True)[:2]
    path.write_bytes(b"".join(kept))


def change_the_checkpoint(folder: Path) -> None:
    path = folder / "checkpoint"
    path.write_text(path.read_text().replace("=\n\n", "A\n\n"))


def remove_it(folder: Path) -> None:
    for path in segment_paths(folder):
        path.unlink()


@pytest.mark.parametrize("spoil", [spoil_a_line, cut_it, change_the_checkpoint, remove_it])
def test_a_log_that_is_not_as_it_was_written_is_not_written_on(
    spoil: Callable[[Path], None], tmp_path: Path
) -> None:
    bench = Bench(tmp_path)
    bench.write(4)
    bench.writer.close()
    spoil(bench.folder)
    before = {path: path.read_bytes() for path in segment_paths(bench.folder)}
    bench = Bench(tmp_path)
    for _ in range(2):
        with pytest.raises(IntegrityError):
            bench.write(1)
    bench.writer.close()
    assert {path: before.get(path) for path in segment_paths(bench.folder)} == before


@pytest.mark.parametrize("spoil", [spoil_a_line, cut_it, remove_it])
def test_a_log_that_is_changed_while_it_is_open_is_not_written_on(
    spoil: Callable[[Path], None], tmp_path: Path
) -> None:
    """A change in place of lines that were read before is for ``verify`` to find."""
    bench = Bench(tmp_path)
    bench.write(4)
    path = segment_paths(bench.folder)[-1]
    if spoil is spoil_a_line:
        copy = path.with_name("copy")
        copy.write_bytes(path.read_bytes())
        copy.replace(path)
    else:
        spoil(bench.folder)
    with pytest.raises(IntegrityError, match="while it was open"):
        bench.write(1)
    bench.writer.close()


def test_a_cut_tail_is_noticed_by_what_the_state_database_knows(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.write(4)
    bench.writer.close()
    known = bench.newest
    cut_it(bench.folder)
    (bench.folder / "checkpoint").unlink()
    bench = Bench(tmp_path, known=known)
    with pytest.raises(IntegrityError, match="it was cut"):
        bench.write(1)
    bench.writer.close()


def test_a_log_in_place_of_one_that_was_moved_away_says_so(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.write(4)
    bench.writer.close()
    known = bench.newest
    assert known is not None
    bench.folder.rename(tmp_path / "old")
    bench = Bench(tmp_path, known=known)
    bench.write(1)
    bench.writer.close()
    first = lines(tmp_path)[0]
    assert first.data["replaces"] == {"origin": known.origin, "size": known.size}
    assert first.source != known.origin
    assert check(tmp_path).ok
    assert check(tmp_path, [known]).status == "changed"


def test_old_segments_go_whole_and_what_is_left_verifies(tmp_path: Path) -> None:
    pace = Pace(events=7, segment_bytes=3000)
    bench = Bench(tmp_path, pace)
    bench.write_apart(30)
    bench.writer.close()
    there = segment_paths(bench.folder)
    full = {path: path.read_bytes() for path in there}
    segments = Segments(bench.folder)
    with segments.locked():
        segments.catch_up({})
        assert prune(segments, 10, time.time() + 9 * 86400) == 0
        assert prune(segments, 10, time.time() + 11 * 86400) == len(there) - 1
    segments.close()
    bench = Bench(tmp_path, pace)
    bench.write_apart(30)
    bench.writer.close()
    found = check(tmp_path)
    assert (found.status, found.first) == ("verified", int(there[-1].stem))
    (says,) = [line for line in lines(tmp_path) if line.type == PRUNED]
    assert says.data["through"] == found.first - 1

    there[-2].write_bytes(full[there[-2]])  # as if a crash had kept it from going
    assert check(tmp_path).ok
    there[-2].unlink()
    there[-1].unlink()  # which no line tells of
    found = check(tmp_path)
    assert (found.status, found.wrong) == ("changed", 1)


def test_segments_go_when_a_new_one_begins(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Pace(events=7, segment_bytes=3000, keep_days=0))
    bench.write_apart(40)
    bench.writer.close()
    found = check(tmp_path)
    assert found.ok
    assert found.first > 20
    assert len(segment_paths(bench.folder)) == 1


def test_a_segment_ends_after_a_day_where_old_ones_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    for keep_days in (None, 9):
        bench = Bench(tmp_path, Pace(keep_days=keep_days))
        bench.write(1)
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda: now + 86_401)
            bench.write(1)
            bench.writer.close()
        found = check(tmp_path)
        assert (found.status, found.signed) == ("verified", found.last)
        assert (len(segment_paths(bench.folder)) > 1) == (keep_days is not None)


def test_a_forked_child_is_told_and_does_not_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path)
    bench.write(1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)
        for submit in (bench.writer.submit, bench.writer.submit_now):
            with pytest.raises(StateError, match="before a fork"):
                submit(Entry(type="test.event"))
    bench.writer.close()


def test_the_files_are_their_owners_alone(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.write(1)
    bench.writer.close()
    assert {path.stat().st_mode & 0o777 for path in bench.folder.iterdir()} == {0o600}
    note = json.loads(segment_paths(bench.folder)[0].read_bytes().splitlines()[-1])
    assert note["data"]["note"].startswith("sandbox-sdk/audit/")
