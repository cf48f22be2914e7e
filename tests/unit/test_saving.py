"""A workspace in memory is sealed when it is saved, put back as it was, and leads nowhere."""

from __future__ import annotations

import os
import socket
from functools import partial
from pathlib import Path

import pytest

from sandbox_sdk.crypto_utils import DataKey
from sandbox_sdk.engine import packing, saving
from sandbox_sdk.errors import IntegrityError

OWNER = 12345 if os.geteuid() == 0 else os.geteuid()
"""Only root gives files away."""

KEY = DataKey.generate()
ID = "sb_1"


def key() -> DataKey:
    return KEY


save = partial(saving.save, key=key, sandbox_id=ID)
restore = partial(saving.restore, owner=None, key=key, sandbox_id=ID)


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


@pytest.fixture
def back(tmp_path: Path) -> Path:
    folder = tmp_path / "back"
    folder.mkdir()
    return folder


def test_what_was_saved_comes_back_as_it_was(live: Path, saved: Path, back: Path) -> None:
    """Content, modes, times, links among files, links by name; what was there before is gone."""
    (saved / "old").write_text("of an earlier life")
    (live / "a").mkdir(mode=0o751)
    (live / "a" / "script").write_bytes(b"\0\xff" * 100_000)
    (live / "a" / "script").chmod(0o755)
    os.utime(live / "a" / "script", ns=(1_000_000_007, 2_000_000_009))
    os.utime(live / "a", ns=(3_000_000_007, 4_000_000_009))
    os.link(live / "a" / "script", live / "again")
    (live / "dangling").symlink_to("/etc/shadow")
    (live / "empty").touch()
    os.mkfifo(live / "pipe")

    left_out = save(live, saved)
    restore(saved, back)

    assert left_out == ("pipe is no file, folder or link",)
    assert sorted(os.listdir(back)) == ["a", "again", "dangling", "empty"]
    found = (back / "a" / "script").stat()
    assert (back / "a" / "script").read_bytes() == b"\0\xff" * 100_000
    assert (found.st_mode & 0o7777, found.st_mtime_ns) == (0o755, 2_000_000_009)
    assert (back / "a").stat().st_mode & 0o7777 == 0o751
    assert (back / "a").stat().st_mtime_ns == 4_000_000_009
    assert (back / "again").stat().st_ino == found.st_ino
    assert os.readlink(back / "dangling") == "/etc/shadow"
    assert (back / "empty").read_bytes() == b""


def test_nothing_of_it_lies_on_the_disk_in_clear(live: Path, saved: Path) -> None:
    (saved / "given").write_text("the hush of its making")
    (live / "named-hush").mkdir()
    (live / "named-hush" / "file").write_bytes(b"hush" * 50_000)
    (live / "link").symlink_to("hush")
    save(live, saved)
    assert sorted(path.name for path in saved.parent.iterdir()) == ["workspace", "workspace.sealed"]
    assert os.listdir(saved) == []
    assert b"hush" not in saving.sealed_path(saved).read_bytes()
    assert saving.sealed_path(saved).stat().st_mode & 0o777 == 0o600


def test_another_key_or_sandbox_does_not_open_it(live: Path, saved: Path, back: Path) -> None:
    (live / "file").write_text("x")
    save(live, saved)
    with pytest.raises(IntegrityError):
        saving.restore(saved, back, None, DataKey.generate, ID)
    with pytest.raises(IntegrityError):
        saving.restore(saved, back, None, key, "sb_2")
    path = saving.sealed_path(saved)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(IntegrityError):
        restore(saved, back)


def test_what_ends_at_a_chunk_too_early_is_refused(live: Path, saved: Path, back: Path) -> None:
    (live / "file").write_bytes(os.urandom(200_000))
    save(live, saved)
    path = saving.sealed_path(saved)
    path.write_bytes(path.read_bytes()[: 101 + 2 * 65553])
    with pytest.raises((IntegrityError, OSError)):
        restore(saved, back)


def test_an_empty_workspace_needs_no_key(live: Path, saved: Path, back: Path) -> None:
    def none() -> DataKey:
        raise AssertionError("asked for")

    (live / "file").write_text("x")
    save(live, saved)
    (live / "file").unlink()
    saving.save(live, saved, none, ID)
    assert [path.name for path in saved.parent.iterdir()] == ["workspace"]
    saving.restore(saved, back, None, none, ID)
    assert os.listdir(back) == []


def test_a_saved_file_is_read_without_touching_the_disk(live: Path, saved: Path) -> None:
    (live / "d").mkdir()
    (live / "d" / "first").write_bytes(b"x" * 100_000)
    os.link(live / "d" / "first", live / "d" / "same")
    (live / "link").symlink_to("d/first")
    (live / "after").write_text("after")
    save(live, saved)

    def read(path: str) -> bytes:
        with os.fdopen(saving.open_saved(saved, path, KEY, ID), "rb") as file:
            return file.read()

    assert read("d/first") == read("d/same") == b"x" * 100_000
    assert read("after") == b"after"
    for path, error in (("d", IsADirectoryError), ("no", FileNotFoundError), ("link", OSError)):
        with pytest.raises(error):
            read(path)


def test_what_is_no_file_folder_or_link_is_left_out_and_named(
    live: Path, saved: Path, back: Path
) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(live / "listens"))
        (live / b"\xff\n".decode("utf-8", "surrogateescape")).write_text("kept")
        left_out = save(live, saved)
    assert left_out == ("listens is no file, folder or link",)
    restore(saved, back)
    assert os.listdir(os.fsencode(back)) == [b"\xff\n"]


def test_a_tree_too_deep_is_cut_and_told(live: Path, saved: Path, back: Path) -> None:
    here = os.open(live, os.O_RDONLY)
    for _ in range(300):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    (told,) = save(live, saved)
    assert told.endswith("lies more than 128 folders deep")
    restore(saved, back)
    assert len(list(back.rglob("*"))) == 128


def test_holes_take_no_room(live: Path, saved: Path, back: Path) -> None:
    """A file of a terabyte that holds a few bytes is saved as such."""
    with open(live / "sparse", "wb") as file:
        file.seek(2**40)
        file.write(b"end")
        file.truncate(2**41)
    save(live, saved)
    assert saving.sealed_path(saved).stat().st_size < 100_000
    restore(saved, back)
    found = (back / "sparse").stat()
    assert (found.st_size, found.st_blocks < 100) == (2**41, True)
    with open(back / "sparse", "rb") as file:
        file.seek(2**40)
        assert file.read(4) == b"end\0"


def test_a_shut_folder_is_saved_and_stays_shut(live: Path, saved: Path, back: Path) -> None:
    (live / "shut").mkdir()
    (live / "shut" / "inside").write_text("x")
    (live / "shut").chmod(0o000)
    assert save(live, saved) == ()
    restore(saved, back)
    assert (back / "shut").stat().st_mode & 0o7777 == 0
    (back / "shut").chmod(0o700)
    assert (back / "shut" / "inside").read_text() == "x"


def test_setuid_bits_are_not_kept(live: Path, saved: Path, back: Path) -> None:
    (live / "program").write_text("x")
    (live / "program").chmod(0o6755)
    save(live, saved)
    restore(saved, back)
    assert (back / "program").stat().st_mode & 0o7777 == 0o755


def test_a_save_that_fails_keeps_the_former_state(
    live: Path, saved: Path, back: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (live / "former").write_text("kept")
    save(live, saved)
    (live / "new").write_text("x" * 100)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            save(live, saved)
    restore(saved, back)
    assert os.listdir(back) == ["former"]
    assert sorted(path.name for path in saved.parent.iterdir()) == ["workspace", "workspace.sealed"]


@pytest.mark.parametrize("sealed", [False, True])
def test_copies_belong_to_the_sandbox(live: Path, saved: Path, back: Path, sealed: bool) -> None:
    """Those of the files that it was made with, and those of what was saved."""
    made = live if sealed else saved
    (made / "d").mkdir()
    (made / "d" / "f").write_text("x")
    (made / "d" / "l").symlink_to("f")
    if sealed:
        save(live, saved)
    saving.restore(saved, back, OWNER, key, ID)
    for path in (back / "d", back / "d" / "f", back / "d" / "l"):
        assert path.lstat().st_uid == OWNER


def test_a_stream_in_pieces_of_any_length_is_unpacked(live: Path, back: Path) -> None:
    (live / "f").write_bytes(b"abc" * 1000)
    whole = b"".join(packing.pack(live, lambda path, why: None))
    packing.unpack((whole[at : at + 7] for at in range(0, len(whole), 7)), back, None)
    assert (back / "f").read_bytes() == b"abc" * 1000
