"""Run a program behind what a systemd unit would put it behind, as far as that needs no systemd.

    python unit_walls.py UNIT UID COMMAND...

As root: control groups of the uid's own, as Delegate=yes gives; an empty bounding set; the uid.
Then, for everybody: no capabilities, no_new_privs, the unit's system calls and address families.
"""

from __future__ import annotations

import errno
import os
import platform
import socket
import subprocess
import sys
from pathlib import Path

from sandbox_sdk.isolation.walls import capabilities, kernel, mounts, seccomp
from sandbox_sdk.isolation.walls.seccomp import ALLOW, Condition, Rule, errno_action
from sandbox_sdk.isolation.walls.syscalls import NUMBERS

GROUPS = Path("/sys/fs/cgroup")
MS_BIND = 4096


def settings(unit: Path) -> dict[str, list[str]]:
    """Every setting of a unit file, with the words of all its lines."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith(("#", ";")):
            found.setdefault(name, []).append(value)
    return found


def calls(words: list[str]) -> set[str]:
    """The system calls that names, and groups of systemd's, stand for."""
    found: set[str] = set()
    for word in words:
        if not word.startswith("@"):
            found.add(word)
            continue
        listed = subprocess.run(
            ["systemd-analyze", "syscall-filter", word], check=True, capture_output=True, text=True
        ).stdout.splitlines()[1:]
        found |= calls([line.strip() for line in listed if not line.strip().startswith("#")])
    return found


def filter_of(unit: dict[str, list[str]]) -> bytes:
    """The unit's SystemCallFilter and RestrictAddressFamilies as a filter of our own generator."""
    allowed: set[str] = set()
    for line in unit["SystemCallFilter"]:
        if line.startswith("~"):
            allowed -= calls(line[1:].split())
        else:
            allowed |= calls(line.split())
    machine = platform.machine()
    rules = [
        Rule("socket", ALLOW, (Condition(0, getattr(socket, family)),))
        for line in unit["RestrictAddressFamilies"]
        for family in line.split()
    ]
    rules.append(Rule("socket", errno_action(errno.EAFNOSUPPORT)))
    # What our table has no number for, this machine's kernels have not.
    rules += [Rule(call, ALLOW) for call in sorted(allowed & NUMBERS[machine].keys())]
    refused, unknown = errno_action(errno.EPERM), errno_action(errno.ENOSYS)
    return seccomp.compile_allow_list(rules, machine=machine, refused=refused, unknown=unknown)


def delegate(uid: int) -> None:
    """Give the uid control groups of its own, and enter them."""
    name = f"sandbox-sdk-unit-{os.getpid()}"
    if (GROUPS / "cgroup.controllers").exists():
        own = GROUPS / name
        own.mkdir()
        for path in (own, *(own / f"cgroup.{each}" for each in ("procs", "subtree_control"))):
            os.chown(path, uid, uid)
        (own / "cgroup.procs").write_text("0")
        return
    mounts.enter_private_namespace()  # in which each tree begins with the uid's own group
    for tree in ("memory", "cpu", "pids", "cpuacct"):
        own = GROUPS / tree / name
        own.mkdir(exist_ok=True)  # two names may stand for one tree
        os.chown(own, uid, uid)
        kernel.mount(str(own), str(GROUPS / tree), "", MS_BIND)


def take_back(pid: int) -> None:
    """Remove the control groups of a program that has ended, with those below them."""
    for own in {path.resolve() for path in GROUPS.glob(f"**/sandbox-sdk-unit-{pid}")}:
        for folder, _, _ in os.walk(own, topdown=False):
            os.rmdir(folder)


def main() -> None:
    unit, uid = settings(Path(sys.argv[1])), int(sys.argv[2])
    assert unit["NoNewPrivileges"] == ["yes"]
    assert unit["CapabilityBoundingSet"] == unit["AmbientCapabilities"] == [""]
    assert unit["Delegate"] == ["yes"]
    program = filter_of(unit)
    if os.geteuid() == 0:
        delegate(uid)
        capabilities.drop_bounding()
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    capabilities.clear()
    seccomp.install(program)
    os.execv(sys.argv[3], sys.argv[3:])


if __name__ == "__main__":
    main()
