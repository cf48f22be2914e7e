"""Trees that hostile code built can be removed, however deep, wide or shut they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sandbox_sdk.engine import reaper
from sandbox_sdk.engine.reaper import remove_group, remove_tree
from sandbox_sdk.isolation.walls.cgroups import Group

DEPTH = 5000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "folder"
    made.mkdir()
    return made


def test_deep_tree(folder: Path) -> None:
    """5,000 folders in each other: a path that no call takes, and deeper than Python recurses."""
    at = os.open(folder, os.O_RDONLY)
    for _ in range(DEPTH):
        os.mkdir("d" * 20, dir_fd=at)
        os.close(os.open("f", os.O_CREAT, dir_fd=at))
        below = os.open("d" * 20, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
    before = len(os.listdir("/proc/self/fd"))
    remove_tree(folder)
    assert not folder.exists()
    assert len(os.listdir("/proc/self/fd")) == before


def test_shut_folders(folder: Path) -> None:
    """Folders without any permission, in and below each other, are no bar to their owner.

    The folder itself is always ours, and open.
    """
    inner = folder / "shut" / "in" / "shut"
    inner.mkdir(parents=True)
    for path in (inner / "file", folder / "shut" / "file"):
        path.touch()
        path.chmod(0)
    for path in (inner, inner.parent, inner.parent.parent):
        path.chmod(0)
    remove_tree(folder)
    assert not folder.exists()


def test_links_are_not_followed(folder: Path, tmp_path: Path) -> None:
    """What links lead to stays, whether they stand for the root or within it."""
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o700)
    (outside / "kept").touch()
    outside.chmod(0o500)
    (folder / "link").symlink_to(outside)
    (folder / "loop").symlink_to(folder)
    os.mkfifo(folder / "pipe")
    remove_tree(folder)
    assert (outside / "kept").exists()
    assert outside.stat().st_mode & 0o777 == 0o500
    (tmp_path / "root-link").symlink_to(outside)
    with pytest.raises(OSError, match="root-link"):
        remove_tree(tmp_path / "root-link")
    assert (outside / "kept").exists()


def test_names_like_its_own(folder: Path) -> None:
    """Names that the removal itself would give are no trouble."""
    for number in range(20):
        (folder / f"reaped-{number}-0" / f"reaped-{number}-0").mkdir(parents=True)
    remove_tree(folder)
    assert not folder.exists()


def test_nothing_there(tmp_path: Path) -> None:
    """Removing what is gone is done."""
    remove_tree(tmp_path / "gone")


class _Stubborn(Group):
    """A group that is empty only after some looks, as one whose processes still end."""

    looks = 0

    def remove(self) -> bool:
        type(self).looks += 1
        return type(self).looks > 3

    def kill(self) -> None:
        """Kill nothing."""


def test_group_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A group in use is killed and looked at again until it goes, but not for ever."""
    assert remove_group(_Stubborn(2, {"memory": "/nowhere"}))
    assert _Stubborn.looks == 4
    monkeypatch.setattr(reaper, "_PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(_Stubborn, "looks", -1000)
    assert not remove_group(_Stubborn(2, {"memory": "/nowhere"}))
