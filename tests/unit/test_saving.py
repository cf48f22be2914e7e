"""A workspace in memory is saved and put back as it was, and nothing in it leads out."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from sandbox_sdk.engine import saving

OWNER = 12345 if os.geteuid() == 0 else os.geteuid()
"""Only root gives files away."""


@pytest.fixture
def live(tmp_path: Path) -> Path:
    folder = tmp_path / "live"
    folder.mkdir()
    return folder


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    folder = tmp_path / "sandbox" / "workspace"
    folder.mkdir(parents=True)
    return folder


def test_what_was_saved_comes_back_as_it_was(live: Path, saved: Path, tmp_path: Path) -> None:
    """Content, modes, times, links among files, links by name; what was there before is gone."""
    (saved / "old").write_text("of an earlier life")
    (live / "a").mkdir(mode=0o751)
    (live / "a" / "script").write_bytes(b"\0\xff" * 100)
    (live / "a" / "script").chmod(0o755)
    os.utime(live / "a" / "script", ns=(1_000_000_007, 2_000_000_009))
    os.link(live / "a" / "script", live / "again")
    (live / "dangling").symlink_to("/etc/shadow")
    os.mkfifo(live / "pipe")

    left_out = saving.save(live, saved)
    back = tmp_path / "back"
    back.mkdir()
    saving.restore(saved, back, None)

    assert left_out == ("pipe is no file, folder or link",)
    assert sorted(os.listdir(back)) == ["a", "again", "dangling"]
    found = (back / "a" / "script").stat()
    assert (back / "a" / "script").read_bytes() == b"\0\xff" * 100
    assert (found.st_mode & 0o7777, found.st_mtime_ns) == (0o755, 2_000_000_009)
    assert (back / "a").stat().st_mode & 0o7777 == 0o751
    assert (back / "again").stat().st_ino == found.st_ino
    assert os.readlink(back / "dangling") == "/etc/shadow"
    assert sorted(path.name for path in saved.parent.iterdir()) == ["workspace"]


def test_what_is_no_file_folder_or_link_is_left_out_and_named(live: Path, saved: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(live / "listens"))
        (live / b"\xff\n".decode("utf-8", "surrogateescape")).write_text("kept")
        left_out = saving.save(live, saved)
    assert left_out == ("listens is no file, folder or link",)
    assert os.listdir(os.fsencode(saved)) == [b"\xff\n"]


def test_a_tree_too_deep_is_cut_and_told(live: Path, saved: Path) -> None:
    here = os.open(live, os.O_RDONLY)
    for _ in range(300):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    (told,) = saving.save(live, saved)
    assert told.endswith("lies more than 128 folders deep")


def test_holes_take_no_room(live: Path, saved: Path) -> None:
    """A file of a terabyte that holds a few bytes is saved as such."""
    with open(live / "sparse", "wb") as file:
        file.seek(2**40)
        file.write(b"end")
    saving.save(live, saved)
    found = (saved / "sparse").stat()
    assert (found.st_size, found.st_blocks < 100) == (2**40 + 3, True)
    with open(saved / "sparse", "rb") as file:
        file.seek(2**40)
        assert file.read() == b"end"


def test_a_shut_folder_is_saved_and_stays_shut(live: Path, saved: Path) -> None:
    (live / "shut").mkdir()
    (live / "shut" / "inside").write_text("x")
    (live / "shut").chmod(0o000)
    assert saving.save(live, saved) == ()
    assert (saved / "shut").stat().st_mode & 0o7777 == 0
    (saved / "shut").chmod(0o700)
    assert (saved / "shut" / "inside").read_text() == "x"


def test_setuid_bits_are_not_kept(live: Path, saved: Path) -> None:
    (live / "program").write_text("x")
    (live / "program").chmod(0o6755)
    saving.save(live, saved)
    assert (saved / "program").stat().st_mode & 0o7777 == 0o755


def test_a_save_that_fails_keeps_the_former_state(
    live: Path, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (saved / "former").write_text("kept")
    (live / "new").write_text("x" * 100)

    def full(source: int, target: int, size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saving, "_pour", full)
    with pytest.raises(OSError, match="No space"):
        saving.save(live, saved)
    assert [path.name for path in saved.parent.iterdir()] == ["workspace"]
    assert (saved / "former").read_text() == "kept"


def test_copies_belong_to_the_sandbox(live: Path, saved: Path) -> None:
    (saved / "d").mkdir()
    (saved / "d" / "f").write_text("x")
    (saved / "d" / "l").symlink_to("f")
    saving.restore(saved, live, OWNER)
    for path in (live / "d", live / "d" / "f", live / "d" / "l"):
        assert path.lstat().st_uid == OWNER
