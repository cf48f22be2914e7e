"""Attacks on the kernel through calls and sockets that code in a sandbox has no need of."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from attacking import Inside, Kind, Outside
from host import ROOT, soon

from sandbox_sdk.sandbox import AsyncSandbox
from sandbox_sdk.values import EndKind, new_id

pytestmark = pytest.mark.anyio

REFUSED = {"EPERM", "ENOSYS", "EAFNOSUPPORT"}
SOCKETS: dict[str, set[str]] = {
    "low": set(),
    "medium": {"unix", "netlink route"},
    "high": {"unix"},
}
"""Those of the attack that each level has."""
CORE_PATTERN = Path("/proc/sys/kernel/core_pattern")
CRASH = """
import ctypes, os, resource, sys
resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)
ctypes.CDLL(None).prctl(15, sys.argv[1].encode())  # the name that the handler is told
ctypes.string_at(0)
"""


async def test_a14_a15_power_over_own_namespaces(inside: Inside, outside: Outside) -> None:
    """No user namespace can be made, so the parts of the kernel that need one are out of reach."""
    free = outside("families")
    nested = {name for name in free if name.endswith("of an own network")}
    assert {free[name] for name in nested} == {"worked"}

    tried = await inside("families")

    assert {tried[name] for name in nested} == {"EPERM"}


async def test_a19_calls_that_kernels_are_attacked_by(inside: Inside, outside: Outside) -> None:
    """Calls that plain users have outside, and those that only root has, are refused inside."""
    free = outside("surface")
    for_root = {"bpf", "fanotify_init", "clock_adjtime", "syslog"}
    assert {how for name, how in free.items() if ROOT or name not in for_root} == {"worked"}

    tried = await inside("surface")

    assert tried.keys() == free.keys()
    assert set(tried.values()) <= REFUSED


async def test_a20_tracing_a_sibling(inside: Inside, outside: Outside, kind: Kind) -> None:
    """Programs of a sandbox may trace each other, as debuggers do; at high no call does it.

    They are one trust, with one uid: what one has in its files or memory another can get.
    """
    assert set(_ways(outside("sibling")).values()) == {"worked"}

    tried = _ways(await inside("sibling"))

    calls = {tried.pop(name) for name in ("trace", "read memory")}
    assert calls == ({"EPERM"} if kind.level == "high" else {"worked"})
    assert tried == {"take descriptor": "EPERM"}


def _ways(told: dict[str, str]) -> dict[str, str]:
    return {name: told[name] for name in ("trace", "read memory", "take descriptor")}


async def test_a26_socket_families(inside: Inside, outside: Outside, kind: Kind) -> None:
    """Sockets are those of a network namespace, if any: ``AF_VSOCK``, which none has, is not."""
    free = outside("families")
    reached = ("vsock", "netlink netfilter", "netlink generic", "netlink route", "unix")
    assert {free[name] for name in reached} == {"worked"}
    if ROOT:
        assert free["packet"] == free["raw"] == "worked"

    tried = await inside("families")

    assert tried.keys() == free.keys()
    allowed = SOCKETS[kind.level]
    assert {name for name, how in tried.items() if how == "worked"} == allowed
    assert {how for name, how in tried.items() if name not in allowed} <= REFUSED


@contextmanager
def _handler(folder: Path) -> Iterator[Path]:
    """Have every crash on this host handled by a program; yield what it writes to."""
    log = folder / "crashes"
    program = folder / "handler"
    program.write_text(f'#!/bin/sh\necho "$1" >> {log}\n')
    program.chmod(0o755)
    before = CORE_PATTERN.read_text()
    CORE_PATTERN.write_text(f"|{program} %e")
    try:
        yield log
    finally:
        CORE_PATTERN.write_text(before)


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """Return a folder whose path is short enough for ``core_pattern``."""
    folder = Path("/run") / new_id("crash")
    folder.mkdir()
    yield folder
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


async def test_a11_crash_with_a_handler_behind_a_pipe(
    sandbox: AsyncSandbox, request: pytest.FixtureRequest
) -> None:
    """A crash inside starts no handler on the host, as one outside does; root would run it.

    Only root may set one up; that nobody else may is all that there is to show as a plain user.
    """
    if not ROOT:
        with pytest.raises(PermissionError):
            CORE_PATTERN.write_text("|/bin/true")
        return
    folder: Path = request.getfixturevalue("short_folder")
    marks = [f"{place}-{os.getpid()}"[:15] for place in ("out", "in", "code")]
    with _handler(folder) as log:
        done = await sandbox.run_command(["python", "-c", CRASH, marks[1]])
        code = await sandbox.run_code(f"import sys; sys.argv = ['', {marks[2]!r}]\n{CRASH}")
        crashed = subprocess.run(
            [sys.executable, "-c", CRASH, marks[0]], check=False, capture_output=True
        )
        # The kernel does not wait for a handler; this one was started after any other.
        assert await soon(lambda: log.exists() and marks[0] in log.read_text())
        handled = log.read_text().split()
    assert crashed.returncode == -11
    assert (done.ended.kind, done.ended.signal) == (EndKind.SIGNAL, 11)
    assert (code.ended.kind, code.ended.signal) == (EndKind.SIGNAL, 11)
    assert not {marks[1], marks[2]} & set(handled)
