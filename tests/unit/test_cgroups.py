"""The control group drivers, over a tree of plain files that stands in for the kernel's."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox_sdk.isolation.walls import cgroup_files, cgroups
from sandbox_sdk.isolation.walls.cgroups import (
    Counters,
    Gate,
    Group,
    GroupLimits,
    GroupUsage,
    Hierarchy,
)

LIMITS = GroupLimits(memory_bytes=64_000_000, cpu=0.5, pids=20)
CONTROLLERS = "cpuset cpu io memory pids"
OWN = "/user.slice/run.scope"
V2 = {
    "cgroup.controllers": CONTROLLERS,
    "cgroup.subtree_control": "",
    "cgroup.type": "domain",
    **dict.fromkeys(("cgroup.procs", "cgroup.kill", "cgroup.freeze"), ""),
    **dict.fromkeys(("memory.max", "memory.swap.max", "cpu.max", "pids.max"), ""),
}
V1 = {
    "memory": {"memory.limit_in_bytes": "", "memory.memsw.limit_in_bytes": ""},
    "cpu": {"cpu.cfs_quota_us": ""},
    "pids": {"pids.max": ""},
    "cpuacct": {"cpuacct.usage": "2500000000"},
    "unified": {"cgroup.kill": "", "cgroup.freeze": "", "cpu.stat": "usage_usec 1500000\n"},
}


@pytest.fixture(autouse=True)
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder whose new folders get files of their own, as the kernel's do."""
    make, remove = os.mkdir, os.rmdir

    def mkdir(path: str, mode: int = 0o777) -> None:
        make(path, mode)
        if str(path).startswith(str(tmp_path)):
            tree = Path(path).relative_to(tmp_path).parts[0]
            write(Path(path), {"cgroup.procs": "", "tasks": "", **V1[tree]} if tree in V1 else V2)

    def rmdir(path: str) -> None:
        if str(path).startswith(str(tmp_path)):
            if Path(path, "cgroup.procs").read_text():
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), path)
            for file in Path(path).iterdir():
                file.unlink()
        remove(path)

    monkeypatch.setattr(os, "mkdir", mkdir)
    monkeypatch.setattr(os, "rmdir", rmdir)
    monkeypatch.setattr(cgroups, "ROOT", str(tmp_path))
    return tmp_path


@pytest.fixture
def tree(kernel: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the root of a v2 hierarchy, as a plain user finds it delegated at ``OWN``."""
    own = kernel / OWN.lstrip("/")
    own.parent.mkdir()
    own.mkdir()
    write(kernel, {name: text for name, text in V2.items() if name != "cgroup.type"})
    be(monkeypatch, 1000, OWN)
    return kernel


@pytest.fixture
def hierarchy(tree: Path) -> Hierarchy:
    found, reason = cgroups.find()
    assert found is not None, reason
    return found


def write(folder: Path, texts: dict[str, str]) -> None:
    for name, text in texts.items():
        (folder / name).write_text(text)


def be(monkeypatch: pytest.MonkeyPatch, uid: int, own: str) -> None:
    """Let this process be of a user, and in a group."""
    read = cgroup_files.read

    def told(path: str) -> str:
        return f"3:pids:/other\n0::{own}\n" if path == "/proc/self/cgroup" else read(path)

    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setattr(cgroup_files, "read", told)


def refuse(monkeypatch: pytest.MonkeyPatch, name: str, number: int) -> None:
    """Let the kernel refuse every write to the files of a name."""
    write = cgroup_files.write

    def refused(path: str, text: str) -> None:
        if path.endswith(name):
            raise OSError(number, os.strerror(number), path)
        write(path, text)

    monkeypatch.setattr(cgroup_files, "write", refused)


def test_v2_delegated_to_a_plain_user(tree: Path) -> None:
    """Groups are made below the user's own group, with the controllers switched on on the way."""
    found, reason = cgroups.find()
    ours = f"{tree}{OWN}/sandbox-sdk"
    assert reason == ""
    assert found == Hierarchy(2, dict.fromkeys(("memory", "cpu", "pids"), ours))
    for folder in (f"{tree}{OWN}", ours):
        assert Path(folder, "cgroup.subtree_control").read_text() == "+cpu +memory +pids"


def test_v2_is_found_again_from_where_it_moved_to(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that stands beside the groups, where it was moved to, finds the same ones."""
    first, _ = cgroups.find()
    be(monkeypatch, 1000, f"{OWN}/sandbox-sdk-host")
    assert cgroups.find()[0] == first


def test_v2_of_root(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root's groups stand at the root of the hierarchy, whose own processes stay where they are."""
    (tree / "cgroup.procs").write_text("1\n2\n")
    be(monkeypatch, 0, "/")
    found, _ = cgroups.find()
    assert found is not None
    assert set(found.folders.values()) == {f"{tree}/sandbox-sdk"}
    assert not (tree / "sandbox-sdk-host").exists()


def test_v2_of_a_root_that_owns_only_its_own_group(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root of a user namespace may find the root of the hierarchy shut, and its own group not."""
    be(monkeypatch, 0, OWN)
    (tree / "cgroup.subtree_control").unlink()
    found, _ = cgroups.find()
    assert found is not None
    assert set(found.folders.values()) == {f"{tree}{OWN}/sandbox-sdk"}


def test_v2_own_processes_make_room(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A group with processes may have no groups that count, so ours move into one beside.

    Those that end or are forked meanwhile are no bar.
    """
    own = tree / OWN.lstrip("/")
    (own / "cgroup.procs").write_text("41\n42\n")
    write, moved = cgroup_files.write, list[str]()

    def move(path: str, text: str) -> None:
        if not path.endswith("sandbox-sdk-host/cgroup.procs"):
            write(path, text)
            return
        moved.append(text)
        left = [pid for pid in ("41", "42", "43") if pid not in moved]
        (own / "cgroup.procs").write_text("\n".join(left))
        if text == "42":
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))

    monkeypatch.setattr(cgroup_files, "write", move)
    found, reason = cgroups.find()
    assert found is not None, reason
    assert moved == ["41", "42", "43"]


def test_v2_without_a_controller(tree: Path) -> None:
    """A hierarchy that counts no processes is none of use, and the reason names what is missing."""
    (tree / OWN.lstrip("/") / "cgroup.controllers").write_text("cpu memory")
    assert cgroups.find() == (None, f"{tree}{OWN} offers no pids controller")


def test_v2_not_delegated(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel refuses to switch controllers on, the reason says so; nothing is left."""
    refuse(monkeypatch, "subtree_control", errno.EACCES)
    found, reason = cgroups.find()
    assert found is None
    assert reason == f"{tree}{OWN} is not delegated to this user (Permission denied)"
    assert not Path(f"{tree}{OWN}/sandbox-sdk").exists()


def test_v2_limits_are_written(hierarchy: Hierarchy) -> None:
    """Memory without swap, cpu as quota of its period, and processes."""
    group = hierarchy.create("sb", LIMITS)
    assert group == hierarchy.group("sb")
    assert (group.version, group.held_by) == (2, "cgroup-v2")
    folder = Path(group.folders["memory"])
    assert {name: (folder / name).read_text() for name in V2 if name.endswith(".max")} == {
        "memory.max": "64000000",
        "memory.swap.max": "0",
        "cpu.max": "50000 100000",
        "pids.max": "20",
    }
    assert hierarchy.leftovers() == ["sb"]


def test_v2_kernel_without_swap(hierarchy: Hierarchy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that counts no swap has no file for it, and none is made."""
    refuse(monkeypatch, "memory.swap.max", errno.ENOENT)
    group = hierarchy.create("sb", LIMITS)
    assert Path(group.folders["memory"], "memory.max").read_text() == "64000000"


def test_v2_least_quota(hierarchy: Hierarchy) -> None:
    """A share of cpu below the kernel's least is the least, not refused."""
    group = hierarchy.create("sb", GroupLimits(memory_bytes=1, cpu=0.001, pids=1))
    assert Path(group.folders["cpu"], "cpu.max").read_text() == "1000 100000"


def test_a_refused_limit_leaves_no_group(
    hierarchy: Hierarchy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A group without its limits must not stay."""
    refuse(monkeypatch, "pids.max", errno.EINVAL)
    with pytest.raises(OSError, match="Invalid"):
        hierarchy.create("sb", LIMITS)
    assert hierarchy.leftovers() == []


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
    assert group.usage() == GroupUsage(1.5, 4096, None, 3, None)
    (folder / "memory.peak").write_text("8192\n")
    (folder / "memory.pressure").write_text(
        "some avg10=0.12 avg60=0.00 avg300=0.00 total=250000\nfull avg10=0.00 total=7\n"
    )
    assert group.usage() == GroupUsage(1.5, 4096, 8192, 3, 0.25)


def test_v2_join_and_kill(hierarchy: Hierarchy) -> None:
    """Joining and killing are one write each; a clone is born inside."""
    group = hierarchy.create("sb", LIMITS)
    group.join()
    group.kill()
    folder = Path(group.folders["memory"])
    assert (folder / "cgroup.procs").read_text() == "0"
    assert (folder / "cgroup.kill").read_text() == "1"
    (folder / "cgroup.procs").write_text("7\n5\n7\n0\n")
    assert group.pids() == [5, 7], "0 is a process that we do not see, and not ourselves"
    gate = group.gate()
    assert gate.files == ()
    assert os.readlink(f"/proc/self/fd/{gate.folder}") == str(folder)
    gate.close()


def test_v2_before_it_could_kill(hierarchy: Hierarchy) -> None:
    """Linux before 5.14 has no file to kill by: what is there is frozen, and signalled."""
    group = hierarchy.create("sb", LIMITS)
    folder = Path(group.folders["memory"])
    (folder / "cgroup.kill").unlink()
    assert killed(group, folder) == -signal.SIGKILL
    assert (folder / "cgroup.freeze").read_text() == "0"


def killed(group: Group, folder: Path) -> int:
    """Kill a group that a real process is in; return how it ended."""
    with subprocess.Popen(["sleep", "100"]) as process:
        (folder / "cgroup.procs").write_text(f"{process.pid}\n4194304\n")  # and one that is gone
        group.kill()
        return process.wait()


def test_a_group_that_is_gone(hierarchy: Hierarchy) -> None:
    """Of a group that does not stand nothing is counted, and removing it again is done already."""
    group = hierarchy.group("gone")
    assert group.counters() == Counters()
    assert group.pids() == []
    group.kill()
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


def test_groups_that_an_unknown_owner_left_are_swept(hierarchy: Hierarchy) -> None:
    """One that is empty for long has no owner; a new one may wait for its first process."""
    names = ("left", "in_use", "new")
    groups = {name: Path(hierarchy.create(name, LIMITS).folders["memory"]) for name in names}
    (groups["in_use"] / "cgroup.procs").write_text("7\n")
    for name in ("left", "in_use"):
        os.utime(groups[name], (0, 0))
    hierarchy.sweep()
    assert hierarchy.leftovers() == ["in_use", "new"]


@pytest.fixture
def old(kernel: Path) -> Callable[..., Hierarchy]:
    """Return what finds the hierarchy of a host with these trees of version 1."""

    def found(*names: str) -> Hierarchy:
        for name in names:
            os.mkdir(kernel / name)
        hierarchy, reason = cgroups.find()
        assert hierarchy is not None, reason
        return hierarchy

    return found


def test_v1_has_a_folder_per_controller(old: Callable[..., Hierarchy], kernel: Path) -> None:
    """On v1 each controller has its tree, and swap is bounded together with memory."""
    hierarchy = old("memory", "cpu", "pids", "cpuacct")
    assert hierarchy.version == 1
    assert hierarchy.folders == {
        name: f"{kernel}/{name}/sandbox-sdk" for name in ("memory", "cpu", "pids", "cpuacct")
    }
    group = hierarchy.create("sb", LIMITS)
    for path, text in {
        "memory/memory.limit_in_bytes": "64000000",
        "memory/memory.memsw.limit_in_bytes": "64000000",
        "cpu/cpu.cfs_quota_us": "50000",
        "pids/pids.max": "20",
    }.items():
        controller, name = path.split("/")
        assert Path(group.folders[controller], name).read_text() == text
    assert group.cpu_seconds() == 2.5
    group.join()
    joined = [Path(folder, "cgroup.procs").read_text() for folder in group.folders.values()]
    assert joined == ["0"] * 4
    assert killed(group, Path(group.folders["pids"])) == -signal.SIGKILL


def test_v1_kernel_that_counts_no_swap(
    old: Callable[..., Hierarchy], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where swap cannot be bounded, none is used."""
    hierarchy = old("memory", "cpu", "pids")
    refuse(monkeypatch, "memory.memsw.limit_in_bytes", errno.ENOENT)
    monkeypatch.setitem(V1["memory"], "memory.swappiness", "")
    group = hierarchy.create("sb", LIMITS)
    assert Path(group.folders["memory"], "memory.swappiness").read_text() == "0"
    assert group.cpu_seconds() is None


def test_v1_with_a_v2_tree_beside_it(old: Callable[..., Hierarchy]) -> None:
    """The tree of version 2 takes clones in, keeps the time, and kills in one write."""
    hierarchy = old("memory", "cpu", "pids", "cpuacct", "unified")
    assert list(hierarchy.folders) == ["memory", "cpu", "pids", "unified"]
    group = hierarchy.create("sb", LIMITS)
    unified = Path(group.folders["unified"])
    assert group.held_by == "cgroup-v1"
    assert group.cpu_seconds() == 1.5
    gate = group.gate()
    assert os.readlink(f"/proc/self/fd/{gate.folder}") == str(unified)
    enter_and_close(gate)
    entered = [Path(group.folders[name], "tasks").read_text() for name in ("memory", "cpu", "pids")]
    assert entered == ["0"] * 3
    # What stood in a tree of version 1 only is killed too.
    assert killed(group, Path(group.folders["pids"])) == -signal.SIGKILL
    assert (unified / "cgroup.kill").read_text() == "1"
    assert (unified / "cgroup.freeze").read_text() == ""


def enter_and_close(gate: Gate) -> None:
    gate.enter()
    gate.close()


def test_v1_not_writable(kernel: Path) -> None:
    """Where one controller cannot be had there is no hierarchy, and the reason names it."""
    for name in ("memory", "cpu", "pids", "cpuacct"):
        os.mkdir(kernel / name)
    (kernel / "pids" / "sandbox-sdk").write_text("in the way")
    found, reason = cgroups.find()
    assert found is None
    assert reason == f"{kernel}/pids/sandbox-sdk is not writable by this user"
