"""The control group drivers, over a tree of plain files that stands in for the kernel's."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from sandbox_sdk.isolation.walls import cgroups
from sandbox_sdk.isolation.walls.cgroups import Counters, GroupLimits, GroupUsage, Hierarchy

LIMITS = GroupLimits(memory_bytes=64_000_000, cpu=0.5, pids=20)
CONTROLLERS = "cpuset cpu io memory pids"
OWN = "/user.slice/run.scope"


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the root of a v2 hierarchy, as a plain user finds it delegated at ``OWN``."""
    own = tmp_path / OWN.lstrip("/")
    own.mkdir(parents=True)
    for folder in (tmp_path, own):
        (folder / "cgroup.controllers").write_text(CONTROLLERS)
        (folder / "cgroup.procs").write_text("")
        (folder / "cgroup.subtree_control").write_text("")
    (own / "cgroup.type").write_text("domain")
    monkeypatch.setattr(cgroups, "ROOT", str(tmp_path))
    monkeypatch.setattr(cgroups, "_own_path", lambda: OWN)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    return tmp_path


@pytest.fixture
def hierarchy(tree: Path) -> Hierarchy:
    found, reason = cgroups.find()
    assert found is not None, reason
    return found


def test_v2_delegated_to_a_plain_user(tree: Path) -> None:
    """Groups are made below the user's own group, with the controllers switched on on the way."""
    found, reason = cgroups.find()
    ours = f"{tree}{OWN}/sandbox-sdk"
    assert reason == ""
    assert found == Hierarchy(2, dict.fromkeys(("memory", "cpu", "pids"), ours))
    for folder in (f"{tree}{OWN}", ours):
        assert Path(folder, "cgroup.subtree_control").read_text() == "+memory +cpu +pids"


def test_v2_of_root(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root's groups stand at the root of the hierarchy, whose own processes stay where they are."""
    (tree / "cgroup.procs").write_text("1\n2\n")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    found, _ = cgroups.find()
    assert found is not None
    assert set(found.folders.values()) == {f"{tree}/sandbox-sdk"}
    assert not (tree / "sandbox-sdk-host").exists()


def test_v2_own_processes_make_room(tree: Path) -> None:
    """A group with processes may have no groups that count, so ours move into one beside."""
    own = tree / OWN.lstrip("/")
    (own / "cgroup.procs").write_text("41\n42\n")
    found, _ = cgroups.find()
    assert found is not None
    assert (own / "sandbox-sdk-host" / "cgroup.procs").read_text() == "42"


def test_v2_without_a_controller(tree: Path) -> None:
    """A hierarchy that counts no processes is none of use, and the reason names what is missing."""
    (tree / OWN.lstrip("/") / "cgroup.controllers").write_text("cpu memory")
    assert cgroups.find() == (None, f"{tree}{OWN} offers no pids controller")


def test_v2_not_delegated(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel refuses to switch controllers on, the reason says so."""
    write = cgroups._write

    def refuse(path: str, text: str) -> None:
        if path.endswith("subtree_control"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        write(path, text)

    monkeypatch.setattr(cgroups, "_write", refuse)
    found, reason = cgroups.find()
    assert found is None
    assert reason == f"{tree}{OWN} is not delegated to this user (Permission denied)"


def test_v2_limits_are_written(hierarchy: Hierarchy) -> None:
    """Memory without swap, cpu as quota of its period, and processes."""
    folder = Path(hierarchy.folders["memory"], "sb")
    folder.mkdir()
    (folder / "memory.swap.max").write_text("max")  # this kernel counts swap
    group = hierarchy.create("sb", LIMITS)
    assert group == hierarchy.group("sb")
    assert (group.version, group.held_by) == (2, "cgroup-v2")
    read = {path.name: path.read_text() for path in folder.iterdir()}
    assert read == {
        "memory.max": "64000000",
        "memory.swap.max": "0",
        "cpu.max": "50000 100000",
        "pids.max": "20",
    }
    assert hierarchy.leftovers() == ["sb"]


def test_v2_least_quota(hierarchy: Hierarchy) -> None:
    """A share of cpu below the kernel's least is the least, not refused."""
    group = hierarchy.create("sb", GroupLimits(memory_bytes=1, cpu=0.001, pids=1))
    assert Path(group.folders["cpu"], "cpu.max").read_text() == "1000 100000"


def test_v2_counters_and_usage(hierarchy: Hierarchy) -> None:
    """Figures come from the kernel's files; one that this kernel does not keep is ``None``."""
    group = hierarchy.create("sb", LIMITS)
    folder = Path(group.folders["memory"])
    (folder / "memory.events").write_text("low 0\nhigh 0\nmax 9\noom 3\noom_kill 2\n")
    (folder / "pids.events").write_text("max 7\n")
    (folder / "cpu.stat").write_text("usage_usec 1500000\nuser_usec 1\nsystem_usec 1\n")
    (folder / "memory.current").write_text("4096\n")
    (folder / "pids.current").write_text("3\n")
    assert group.counters() == Counters(oom_kills=2, pids_refused=7)
    assert group.usage() == GroupUsage(1.5, 4096, None, 3)
    (folder / "memory.peak").write_text("8192\n")
    assert group.usage().memory_peak_bytes == 8192


def test_v2_join_and_kill(hierarchy: Hierarchy) -> None:
    """Joining and killing are one write each."""
    group = hierarchy.create("sb", LIMITS)
    group.join()
    group.kill()
    folder = Path(group.folders["memory"])
    assert (folder / "cgroup.procs").read_text() == "0"
    assert (folder / "cgroup.kill").read_text() == "1"
    (folder / "cgroup.procs").write_text("7\n5\n7\n")
    assert group.pids() == [5, 7]


def test_a_group_that_is_gone(hierarchy: Hierarchy) -> None:
    """Of a group that does not stand nothing is counted, and removing it again is done already."""
    group = hierarchy.group("gone")
    assert group.counters() == Counters()
    assert group.pids() == []
    assert group.remove()
    with pytest.raises(FileNotFoundError):
        group.usage()


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EACCES])
def test_removing_a_group_in_use(
    hierarchy: Hierarchy, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A group that still ends says so; one that may not be removed is an error."""

    def refuse(folder: str) -> None:
        raise OSError(number, os.strerror(number), folder)

    monkeypatch.setattr(os, "rmdir", refuse)
    group = hierarchy.group("sb")
    if number == errno.EBUSY:
        assert not group.remove()
    else:
        with pytest.raises(PermissionError):
            group.remove()


def _v1(root: Path, *names: str) -> None:
    for name in names:
        (root / name).mkdir()


def test_v1_has_a_folder_per_controller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On v1 each controller has its tree, and swap is bounded together with memory."""
    monkeypatch.setattr(cgroups, "ROOT", str(tmp_path))
    _v1(tmp_path, "memory", "cpu", "pids", "cpuacct")
    found, _ = cgroups.find()
    assert found is not None
    assert found.version == 1
    assert found.folders == {
        name: f"{tmp_path}/{name}/sandbox-sdk" for name in ("memory", "cpu", "pids", "cpuacct")
    }
    group = found.create("sb", LIMITS)
    for path, text in {
        "memory/memory.limit_in_bytes": "64000000",
        "cpu/cpu.cfs_period_us": "100000",
        "cpu/cpu.cfs_quota_us": "50000",
        "pids/pids.max": "20",
    }.items():
        controller, name = path.split("/")
        assert Path(group.folders[controller], name).read_text() == text
    group.join()
    joined = [Path(folder, "cgroup.procs").read_text() for folder in group.folders.values()]
    assert joined == ["0"] * 4


def test_v1_not_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one controller cannot be had there is no hierarchy, and the reason names it."""
    monkeypatch.setattr(cgroups, "ROOT", str(tmp_path))
    _v1(tmp_path, "memory", "cpu", "pids", "cpuacct")
    (tmp_path / "pids" / "sandbox-sdk").write_text("in the way")
    assert cgroups.find() == (None, f"{tmp_path}/pids is not writable (File exists)")
