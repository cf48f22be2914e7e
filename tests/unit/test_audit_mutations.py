"""Whatever is done to a closed audit log is found, and the first wrong line is named."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from auditing import Bench, check, key_of, trusted

from sandbox_sdk.audit.events import Entry, Line, line_hash
from sandbox_sdk.audit.log import FOLDER
from sandbox_sdk.audit.notes import Checkpoint
from sandbox_sdk.audit.segments import segment_paths
from sandbox_sdk.audit.verify import verify_log
from sandbox_sdk.errors import IntegrityError

MUTATIONS = 200  # of each of five kinds


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Checkpoint]:
    """A closed log of several segments, and what the state database knows of it."""
    state = tmp_path_factory.mktemp("log")
    bench = Bench(state)
    bench.write_apart(60)
    bench.writer.close()
    assert bench.newest is not None
    assert len(segment_paths(bench.folder)) > 3
    return state, bench.newest


Lines = dict[Path, list[bytes]]


def read(state: Path) -> Lines:
    paths = segment_paths(state / FOLDER)
    return {path: path.read_bytes().splitlines(keepends=True) for path in paths}


def pick(lines: Lines, rng: random.Random) -> tuple[Path, int, int]:
    """A line: its file, its place in it, and its number in the log."""
    number = rng.randrange(sum(map(len, lines.values()))) + 1
    before = 0
    for path, each in lines.items():
        if number <= before + len(each):
            return path, number - before - 1, number
        before += len(each)
    raise AssertionError("unreachable: the number is of a line")


def edit(lines: Lines, rng: random.Random) -> int | None:
    """Change one byte, which may be any but that of a newline."""
    path, place, number = pick(lines, rng)
    line = bytearray(lines[path][place])
    at = rng.randrange(len(line) - 1)
    line[at] ^= 1 << rng.randrange(7)
    if line[at] == ord("\n"):
        line[at] = ord("x")
    lines[path][place] = bytes(line)
    return number


def delete(lines: Lines, rng: random.Random) -> int | None:
    """Remove one line."""
    path, place, number = pick(lines, rng)
    del lines[path][place]
    return number


def reorder(lines: Lines, rng: random.Random) -> int | None:
    """Exchange two lines."""
    one, two = pick(lines, rng), pick(lines, rng)
    while one == two:
        two = pick(lines, rng)
    left, right = lines[one[0]][one[1]], lines[two[0]][two[1]]
    lines[one[0]][one[1]], lines[two[0]][two[1]] = right, left
    return min(one[2], two[2])


def truncate(lines: Lines, rng: random.Random) -> int | None:
    """Cut the log off, in a line or between two, and remove what follows."""
    path, place, number = pick(lines, rng)
    kept = rng.choice([0, rng.randrange(len(lines[path][place]))])
    lines[path][place:] = [lines[path][place][:kept]] if kept else []
    for later in [each for each in lines if each > path]:
        del lines[later]
    return number


def splice(lines: Lines, rng: random.Random) -> int | None:
    """Put a line in that was not there: one of this log, or one made to fit."""
    path, place, _ = pick(lines, rng)
    if rng.random() < 0.5:
        other = pick(lines, rng)
        lines[path].insert(place, lines[other[0]][other[1]])
        return None  # which of two equal lines is the wrong one is a matter of words
    after = Line.parse(lines[path][place])
    entry = Entry(type="test.event", data={"number": rng.random()})
    new = entry.to_line(origin=after.source, sequence=after.sequence, previous=after.previous)
    lines[path].insert(place, new)
    return None


@pytest.mark.slow
@pytest.mark.parametrize("mutate", [edit, delete, reorder, truncate, splice])
def test_every_mutation_is_found(
    mutate: Callable[[Lines, random.Random], int | None],
    log: tuple[Path, Checkpoint],
    tmp_path: Path,
) -> None:
    state, newest = log
    assert check(state, [newest]).ok
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    for turn in range(MUTATIONS):
        shutil.rmtree(tmp_path)
        shutil.copytree(state, tmp_path)
        lines = read(tmp_path)
        expected = mutate(lines, rng)
        for path in segment_paths(tmp_path / FOLDER):
            path.unlink()
        for path, each in lines.items():
            path.write_bytes(b"".join(each))
        found = check(tmp_path, [newest])
        assert found.status == "changed", (seed, turn)
        if expected is None:
            continue
        if expected == newest.size and f"or one up to {expected}" in found.detail:
            # No line follows the last one: if it is the signed one and says no more that it is,
            # only the signature before it tells from where on something is wrong.
            assert found.wrong is not None
            assert found.wrong <= expected, (seed, turn, found)
        else:
            assert found.wrong == expected, (seed, turn, found)


def test_two_segments_whose_first_lines_changed_places_are_told_from_one_that_went(
    log: tuple[Path, Checkpoint], tmp_path: Path
) -> None:
    state, newest = log
    shutil.copytree(state, tmp_path, dirs_exist_ok=True)
    one, two, *_ = segment_paths(tmp_path / FOLDER)
    first, second = (path.read_bytes().splitlines(keepends=True) for path in (one, two))
    first[0], second[0] = second[0], first[0]
    one.write_bytes(b"".join(first))
    two.write_bytes(b"".join(second))
    assert check(tmp_path, [newest]).wrong == 1


def test_an_edit_of_the_last_line_is_told_from_one_of_the_line_before(
    log: tuple[Path, Checkpoint], tmp_path: Path
) -> None:
    state, newest = log
    shutil.copytree(state, tmp_path, dirs_exist_ok=True)
    last = segment_paths(tmp_path / FOLDER)[-1]
    *before, raw = last.read_bytes().splitlines(keepends=True)
    said = Line.parse(raw).previous.encode()
    last.write_bytes(b"".join([*before, raw.replace(said, said[::-1])]))
    assert check(tmp_path, [newest]).wrong == newest.size
    assert Line.parse(before[-1]).sequence == newest.size - 1
    changed = before[-1].replace(b'"specversion"', b' "specversion"')
    last.write_bytes(b"".join([*before[:-1], changed, raw]))
    assert check(tmp_path, [newest]).wrong == newest.size - 1


def test_a_chain_that_was_made_anew_is_found_by_the_next_checkpoint(
    log: tuple[Path, Checkpoint], tmp_path: Path
) -> None:
    """Everything after an edited line fits again; only the signatures cannot be made."""
    state = log[0]
    shutil.copytree(state, tmp_path, dirs_exist_ok=True)
    lines = read(tmp_path)
    previous = ""
    for path, each in lines.items():
        for place, raw in enumerate(each):
            parsed = Line.parse(raw)
            text = raw.decode()
            if parsed.sequence == 10:
                text = text.replace('"number":0', '"number":9')
                assert text.encode() != raw
            if parsed.sequence > 10:
                text = text.replace(parsed.previous, previous)
            each[place] = text.encode()
            previous = line_hash(each[place])
        path.write_bytes(b"".join(each))
    (tmp_path / FOLDER / "checkpoint").unlink()
    found = check(tmp_path)
    assert found.status == "changed"
    assert found.wrong is not None
    assert found.wrong <= 10 <= found.wrong + 8
    assert "chain was made anew" in found.detail


def test_a_log_signed_by_another_key_is_none_of_ours(
    log: tuple[Path, Checkpoint], tmp_path: Path
) -> None:
    state = log[0]
    other = Bench(tmp_path / "other")
    other.write(3)
    other.writer.close()
    found = verify_log(state / FOLDER, trusted(tmp_path / "other"))
    assert found.status == "changed"
    assert "none of the keys" in found.detail


def test_a_tail_that_was_cut_with_its_checkpoint_is_found_by_what_is_kept_elsewhere(
    log: tuple[Path, Checkpoint], tmp_path: Path
) -> None:
    """The log and its file of an earlier moment are in order; a later checkpoint says otherwise."""
    bench = Bench(tmp_path / "now")
    bench.write(3)
    bench.writer.close()
    shutil.copytree(tmp_path / "now", tmp_path / "then")
    bench = Bench(tmp_path / "now")
    bench.write(2)
    bench.writer.close()
    assert bench.newest is not None
    kept = (tmp_path / "now" / FOLDER / "checkpoint").read_text()
    then = tmp_path / "then"
    assert check(then).ok
    for found in (
        check(then, [bench.newest]),
        verify_log(then / FOLDER, trusted(then), notes=[kept]),
    ):
        assert found.status == "changed"
        assert found.wrong == 6
        assert "was cut" in found.detail
    assert verify_log(tmp_path / "now" / FOLDER, trusted(then), notes=[kept]).ok
    with pytest.raises(IntegrityError, match="none of the keys"):
        verify_log(then / FOLDER, trusted(log[0]), notes=[kept])


def test_a_log_that_is_gone_is_missed(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="no audit log"):
        verify_log(tmp_path)
    key_of(tmp_path)
    known = Checkpoint(origin="x", size=9, root=bytes(32))
    found = verify_log(tmp_path, known=[known])
    assert (found.status, found.wrong) == ("changed", 1)
