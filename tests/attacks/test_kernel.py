"""Attacks on the kernel's own doors: switches, namespaces, foreign system calls, devices."""

from __future__ import annotations

import json
import os
import platform
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from attacking import PROGRAMS, Inside, Kind, Outside
from host import ROOT, told

from sandbox_sdk.sandbox import AsyncSandbox

pytestmark = pytest.mark.anyio

REFUSED = {"EPERM", "ENOSYS", "EROFS", "EACCES"}
ABSENT = {"ENOENT", "ENOTDIR", "ENXIO"}


async def test_a09_writing_the_kernels_switches(inside: Inside, outside: Outside) -> None:
    """No switch below ``/proc`` or ``/sys`` opens for writing.

    A plain user may not open the host's either, so for him those of an own network namespace are
    the control (``test_a16``); root may.
    """
    free = outside("settings")
    tried = await inside("settings")
    switches = "/proc/sys/kernel/core_pattern", "/proc/sys/net/ipv4/ip_forward"
    for switch in switches:
        assert free[switch] == ("worked" if ROOT else "EACCES")
        assert tried[switch] in REFUSED
    assert set(tried.values()) <= REFUSED | ABSENT


async def test_a10_writing_control_groups(
    inside: Inside, outside: Outside, sandbox: AsyncSandbox
) -> None:
    """No control group can be written to."""
    free = outside("control_groups")
    assert free["mounts"]
    if ROOT:
        assert "worked" in free.values()

    tried = await inside("control_groups")

    groups = tried.keys() - {"mounts", "paths"}
    assert "/sys/fs/cgroup" in groups
    assert {tried[group] for group in groups} <= REFUSED | ABSENT
    assert sandbox.id not in tried["paths"]


async def test_a10_control_groups_are_not_shown(inside: Inside, outside: Outside) -> None:
    """None is mounted inside, and the path of the own one is hidden."""
    assert outside("control_groups")["mounts"]

    tried = await inside("control_groups")

    assert tried["mounts"] == ""
    assert set(tried["paths"].split()) == {"/"}


async def test_a11_core_dumps(inside: Inside, outside: Outside) -> None:
    """A crash makes no core file and starts no handler, and the limit cannot be raised.

    A limit of 1 is what stops a handler behind a pipe too; 0 would not.
    """
    free = outside("crash")
    assert (free["dumped"], free["raise limit"]) == ("True", "worked")

    tried = await inside("crash")

    assert tried["limit"] == "(1, 1)"
    assert tried["raise limit"] == "EPERM"
    assert tried["dumped"] == "False"
    assert "file" not in tried


async def test_a13_setuid_programs(inside: Inside, outside: Outside) -> None:
    """A setuid program gains nothing: there are no new privileges, and none to begin with."""
    program = "/usr/bin/su"
    free = outside("privileges", program)
    assert (free["gained"], free["no new privileges"]) == ("True", "0")

    tried = await inside("privileges", program)

    assert tried["gained"] == "False"
    assert tried["no new privileges"] == "1"
    assert {int(tried[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
    assert tried["become root"] in {"EPERM", "EINVAL"}


async def test_a13_setuid_bits(inside: Inside, outside: Outside) -> None:
    """Nothing would be gained without that wall: no mount heeds the bit, no right is in bounds."""
    free = outside("privileges", "/usr/bin/su")
    assert free["mounts with setuid"]
    assert int(free["CapBnd"], 16)

    tried = await inside("privileges", "/usr/bin/su")

    assert tried["mounts with setuid"] == ""
    assert int(tried["CapBnd"], 16) == 0


async def test_a16_namespaces_and_mounts(inside: Inside, outside: Outside) -> None:
    """The whole way from an own user namespace to changed mounts is open outside, shut inside."""
    free = outside("namespaces")
    assert set(free.values()) == {"worked"}

    tried = await inside("namespaces")

    assert tried.keys() == free.keys()
    assert {name: how for name, how in tried.items() if how not in REFUSED} == {}


def test_a17_typing_into_the_callers_terminal(kind: Kind, tmp_path: Path) -> None:
    """Code that was started from a terminal types nothing into it, high bits set or not."""
    before = _on_a_terminal([sys.executable, str(PROGRAMS / "inject_input.py")], tmp_path)
    owner = Path(__file__).parent / "terminal_owner.py"
    told_by = json.dumps([str(tmp_path), kind.settings, kind.waive])
    after = _on_a_terminal([sys.executable, str(owner), told_by], tmp_path)
    free, tried = told(before.shown), told(after.shown)
    assert free.keys() == tried.keys()
    if ROOT or Path("/proc/sys/dev/tty/legacy_tiocsti").read_text().strip() != "0":
        assert "INJECTED" in before.typed
        assert free["TIOCSTI"] == free["TIOCSTI, high bit"] == "worked"
    else:  # this kernel itself refuses it to plain users
        assert free["TIOCSTI"] == "EIO"
    # Outside, the request reaches the terminal's driver, which has no such thing.
    assert free["TIOCLINUX"] == free["TIOCLINUX, high bit"] == "ENOTTY"
    assert "INJECTED" not in after.typed
    ours = ("TIOCSTI", "TIOCSTI, high bit", "TIOCLINUX", "TIOCLINUX, high bit")
    assert {tried[name] for name in ours} <= {"EPERM"} | kind.hidden  # where no terminal is had
    assert tried["/dev/tty"] == "ENXIO"
    assert {tried[f"descriptor {number}"] for number in range(3)} <= {"EPERM", "ENOTTY"}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the foreign calls are x86's")
async def test_a18_foreign_system_calls(inside: Inside, outside: Outside) -> None:
    """A call by the numbers of i386 or x32 ends the process, which the host's kernel would not."""
    free = outside("foreign_calls")
    # A kernel without 32-bit calls has no such gate, so the instruction itself faults.
    assert free["int 0x80"] in {"worked", "SIGSEGV"}
    assert free["x32"] in {"worked", "ENOSYS"}

    tried = await inside("foreign_calls")

    assert tried["x32"] == "SIGSYS"
    assert tried["int 0x80"] == ("SIGSYS" if free["int 0x80"] == "worked" else "SIGSEGV")


async def test_a22_devices(inside: Inside, outside: Outside, kind: Kind) -> None:
    """No device can be made, and of the host's only the harmless ones are there."""
    harmless = {
        "core", "fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin",
        "stdout", "tty", "urandom", "zero",
    }  # fmt: skip
    free = outside("devices")
    assert free["make disk"] == ("worked" if ROOT else "EPERM")
    assert set(free["all"].split()) - harmless, "this host shows no device worth hiding"

    tried = await inside("devices")

    assert set(tried["all"].split()) <= harmless | kind.hidden
    assert {tried[f"make {name}"] for name in ("disk", "memory", "kvm")} == {"EPERM"}
    opened = {how for name, how in tried.items() if name.startswith("/dev/")}
    assert opened <= kind.hidden


async def test_a23_files_by_handle(inside: Inside, outside: Outside) -> None:
    """Handles, which lead past every mount, are neither given nor opened."""
    free = outside("handles", "/usr/bin/env")
    assert free["name_to_handle_at"] == "worked"
    if ROOT:
        assert free["open_by_handle_at"] == "worked"

    tried = await inside("handles", "/usr/bin/env")

    assert tried == {"name_to_handle_at": "EPERM", "open_by_handle_at": "EPERM"}


class _Terminal:
    """What a program showed on its terminal, and what was typed there when it had ended."""

    def __init__(self, shown: str, typed: str) -> None:
        self.shown, self.typed = shown, typed


def _on_a_terminal(words: list[str], folder: Path) -> _Terminal:
    """Run a program with a terminal of its own, then read what waits there as input."""
    parent, terminal = pty.openpty()
    # The one who reads what was typed: holds the terminal open after the program has ended.
    reader = f"{words!r}"
    script = (
        "import os, select, subprocess, sys\n"
        f"subprocess.run({reader}, check=True)\n"
        "ready, _, _ = select.select([0], [], [], 0)\n"
        "typed = os.read(0, 1000) if ready else b''\n"
        "print('TYPED', typed)\n"
    )
    with subprocess.Popen(
        ["setsid", "--ctty", sys.executable, "-c", script],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        cwd=folder,
    ) as process:
        os.close(terminal)
        text = b""
        while True:
            try:
                data = os.read(parent, 65536)
            except OSError:  # the terminal's other side is gone
                break
            if not data:
                break
            text += data
        process.wait()
    os.close(parent)
    shown, _, typed = text.decode("utf-8", "replace").rpartition("TYPED")
    lines = [line for line in re.split(r"[\r\n]+", shown) if line.startswith("{")]
    assert lines, text
    return _Terminal(lines[-1], typed)
