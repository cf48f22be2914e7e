"""What a host allows is found by trying; what is missing is named with its fix."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox_sdk.config import UidRange
from sandbox_sdk.isolation import hygiene, remedies, trials
from sandbox_sdk.isolation.probe import Probe, missing, probe_host
from sandbox_sdk.isolation.walls import landlock
from sandbox_sdk.values import Wall

RANGE = (UidRange().first, UidRange().count)
ALL_USERS = 2**32 - 1


def by_name(probes: tuple[Probe, ...]) -> dict[str, Probe]:
    return {probe.wall.name: probe for probe in probes}


def walls_missing_in_namespace(limit: int, users: int) -> dict[str, str]:
    """Return what is missing for medium in a user namespace that allows this little."""
    code = (
        "from sandbox_sdk.isolation.probe import *\n"
        f"for wall in missing(probe_host({RANGE}), 'medium'):\n"
        "    print(wall.name, wall.detail, wall.fix, sep='|')\n"
    )
    helper = Path(__file__).with_name("namespace_helper.py")
    done = subprocess.run(
        [sys.executable, str(helper), str(limit), str(users), code],
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(line.split("|", 1) for line in done.stdout.splitlines())


def host(root: Path, files: dict[str, str]) -> Path:
    """Make a host whose kernel files say this."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def program(folder: Path, text: str) -> None:
    """Make the only ``bwrap`` that can be found."""
    (folder / "bwrap").write_text(f"#!/bin/sh\n{text}\n")
    (folder / "bwrap").chmod(0o755)


def test_this_host_has_all_that_medium_needs() -> None:
    probes = probe_host(RANGE)
    assert missing(probes, "medium") == ()
    found = by_name(probes)
    assert len(found) == len(probes)
    assert {"machine", "kernel", "seccomp", "user_namespaces"} <= set(found)
    assert found["zygote_sandbox"].wall.in_force
    assert found["bubblewrap_sandbox"].wall.in_force
    assert ("spare_uids" in found) == (os.geteuid() == 0)
    for probe in probes:
        assert probe.wall.detail
        assert bool(probe.wall.fix) != probe.wall.in_force


def test_the_process_that_asks_stays_where_it_is() -> None:
    def namespaces() -> list[int]:
        return [os.stat(f"/proc/self/ns/{name}").st_ino for name in ("user", "mnt", "pid", "net")]

    before = namespaces(), os.getresuid(), Path("/proc/self/mountinfo").read_text()
    probe_host(RANGE)
    assert (namespaces(), os.getresuid(), Path("/proc/self/mountinfo").read_text()) == before


def test_namespaces_that_are_switched_off_are_told_with_the_setting() -> None:
    walls = walls_missing_in_namespace(0, ALL_USERS)
    assert set(walls) == {"user_namespaces", "zygote_sandbox", "bubblewrap_sandbox"}
    for said in walls.values():
        assert "user.max_user_namespaces is 0" in said
        assert "echo user.max_user_namespaces=31000 | sudo tee" in said


def test_an_absent_bwrap_is_told_with_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    probes = probe_host(RANGE)
    found = by_name(probes)
    assert "apt install bubblewrap" in found["bubblewrap"].wall.fix
    assert found["bubblewrap_sandbox"].wall.detail.startswith("not tried")
    assert missing(probes, "medium") == (), "the zygote is enough"


def test_an_old_bwrap_is_told_with_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, "echo bubblewrap 0.4.1")
    monkeypatch.setenv("PATH", str(tmp_path))
    wall = by_name(probe_host(RANGE))["bubblewrap"].wall
    assert "0.4.1" in wall.detail
    assert "0.8.0 or newer" in wall.fix


def test_a_bwrap_that_makes_no_sandbox_is_told_with_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(
        tmp_path,
        'case $* in *--version*) echo bubblewrap 0.11.0;; *) echo "bwrap: no luck" >&2; exit 1;;'
        " esac",
    )
    tmp_path.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    wall = by_name(probe_host(RANGE))["bubblewrap_sandbox"].wall
    assert not wall.in_force
    assert "bwrap: no luck" in wall.detail
    assert "--unshare-all" in wall.fix


@pytest.mark.skipif(os.geteuid() != 0, reason="only root drops to other user ids")
def test_user_ids_that_do_not_exist_are_told_with_the_setting() -> None:
    walls = walls_missing_in_namespace(1000, 65536)
    assert "set uid_range in config.yaml" in walls["spare_uids"]
    assert walls["bubblewrap_sandbox"].startswith("not tried")
    assert walls["zygote_sandbox"].startswith("not tried")
    assert "user_namespaces" not in walls


def test_where_only_bwrap_may_make_namespaces_medium_can_be_had(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on Ubuntu, whose AppArmor has a profile for bwrap and none for us."""
    refused = Wall(name="zygote_sandbox", in_force=False, detail="refused", fix="a profile")
    monkeypatch.setattr(trials, "clone", lambda uid: refused)
    probes = probe_host(RANGE)
    assert missing(probes, "medium") == ()
    assert refused in missing(probes, "high")


def test_a_missing_landlock_keeps_nobody_from_medium() -> None:
    found = by_name(probe_host(RANGE))
    assert found["landlock"].needed_by == ("high", "maximum")
    assert found["landlock"].wall.in_force == (landlock.abi() > 0)


ALLOWED = {
    "proc/self/mountinfo": "22 1 8:1 / / rw - ext4 /dev/sda1 rw",
    "proc/self/status": "Seccomp:\t0",
    "proc/sys/user/max_user_namespaces": "31000",
}

CAUSES = {
    "debian": ({"proc/sys/kernel/unprivileged_userns_clone": "0"}, "kernel.unprivileged_userns"),
    "limit": ({"proc/sys/user/max_user_namespaces": "0"}, "echo user.max_user_namespaces=31000"),
    "ubuntu": (
        {"proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1"},
        "apt install bubblewrap apparmor-profiles",
    ),
    "docker": ({"proc/self/status": "Seccomp:\t2", ".dockerenv": ""}, "seccomp=unconfined"),
    "podman": ({"proc/self/status": "Seccomp:\t2", "run/.containerenv": ""}, "seccomp=unconfined"),
    "systemd": ({"proc/self/status": "Seccomp:\t2"}, "remove RestrictNamespaces="),
    "weak root": (
        {"proc/self/status": "Uid:\t0\t0\t0\t0\nCapEff:\t00000000a80425fb\nSeccomp:\t0"},
        "use a plain user",
    ),
    "chroot": (
        {"proc/self/mountinfo": "30 22 0:5 / /proc rw - proc proc rw"},
        "outside the chroot",
    ),
    "unknown": ({}, "dmesg"),
}


@pytest.mark.parametrize("name", CAUSES)
def test_each_cause_has_its_own_fix(name: str, tmp_path: Path) -> None:
    files, fix = CAUSES[name]
    root = host(tmp_path, {**ALLOWED, **files})
    assert fix in remedies.find_cause(root).fix
    said = "bwrap: setting up uid map: Permission denied"
    assert fix in str(remedies.explain(said, root))


def test_a_kernel_without_user_namespaces_is_told(tmp_path: Path) -> None:
    assert "CONFIG_USER_NS" in remedies.find_cause(tmp_path).fix


WORDS = {
    "bwrap: No permissions to create new namespace, likely because": (
        "user_namespace",
        "kernel.unprivileged",
    ),
    "bwrap: No permissions to creating new namespace, likely": (
        "user_namespace",
        "kernel.unprivileged",
    ),
    "bwrap: Creating new namespace failed: Invalid argument": (
        "user_namespace",
        "kernel.unprivileged",
    ),
    "bwrap: loopback: Failed RTM_NEWADDR: Operation not permitted": (
        "user_namespace",
        "kernel.unprivileged",
    ),
    "bwrap: Creating new namespace failed: nesting depth or exceeded (ENOSPC)": (
        "user_namespace",
        "max_user_names",
    ),
    "[Errno 28] clone3(0x3c020000): No space left on device": ("user_namespace", "max_user_names"),
    "[Errno 1] unshare(0x20000): Operation not permitted": ("user_namespace", "kernel.unprivil"),
    "[Errno 22] pivot_root: Invalid argument": ("user_namespace", "kernel.unprivileged"),
    "bwrap: Can't mount proc on /newroot/proc: Operation not permitted": (
        "pid_namespace",
        "systempaths=unconfined",
    ),
    "[Errno 1] mount proc on /proc: Operation not permitted": ("pid_namespace", "systempaths="),
    "[Errno 38] mount_setattr: Function not implemented": ("mnt_namespace", "Linux 5.12"),
    "[Errno 22] seccomp filter: Invalid argument": ("seccomp", "CONFIG_SECCOMP_FILTER"),
    "[Errno 22] uid 7 cannot be dropped to: Invalid argument": ("own_uid", "uid_range"),
    "bwrap: The --size option is not permitted in setuid mode": ("bubblewrap", "chmod u-s"),
    "bwrap: Unknown option --disable-userns": ("bubblewrap", "apt install bubblewrap"),
}


@pytest.mark.parametrize("said", WORDS)
def test_what_a_runtime_says_leads_to_the_wall_and_the_fix(said: str, tmp_path: Path) -> None:
    clone = {"proc/sys/kernel/unprivileged_userns_clone": "0"}
    cause = remedies.explain(said, host(tmp_path, {**ALLOWED, **clone}))
    wall, fix = WORDS[said]
    assert cause is not None
    assert cause.wall == wall
    assert fix in cause.fix


def test_words_that_say_nothing_of_the_host_are_not_explained() -> None:
    assert remedies.explain("bwrap: execvp python: No such file") is None


GROUP_FIXES = {
    "root": (0, {}, "make /sys/fs/cgroup writable"),
    "old": (1000, {}, "boot with cgroup v2"),
    "systemd": (
        1000,
        {"sys/fs/cgroup/cgroup.controllers": "", "run/user/1000/systemd/private": ""},
        "run it with a group of its own: systemd-run --user --scope -p Delegate=yes",
    ),
    "no systemd": (1000, {"sys/fs/cgroup/cgroup.controllers": ""}, "let root make a group"),
}


@pytest.mark.parametrize("name", GROUP_FIXES)
def test_how_to_get_a_control_group_depends_on_the_host(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid, files, fix = GROUP_FIXES[name]
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    assert remedies.group_fix(host(tmp_path, files)).startswith(fix)


def test_hygiene_is_told_both_ways_and_what_is_not_there_is_left_out(tmp_path: Path) -> None:
    header = "Filename Type Size Used Priority\n"
    good = {"proc/swaps": header, "proc/sys/kernel/core_pattern": "core\n"}
    bad = {
        "proc/swaps": header + "/dev/sda2 partition 1 0 -2\n",
        "proc/sys/kernel/core_pattern": "|/usr/share/apport/apport %p",
        "proc/sys/kernel/yama/ptrace_scope": "0",
        "sys/devices/system/cpu/smt/active": "1",
    }
    found = list(hygiene.look(host(tmp_path / "good", good)))
    assert [(wall.name, wall.in_force, wall.fix) for wall in found] == [
        ("no_swap", True, ""),
        ("core_pattern", True, ""),
    ]
    found = list(hygiene.look(host(tmp_path / "bad", bad)))
    assert len(found) == 4
    assert all(not wall.in_force and wall.fix for wall in found)
