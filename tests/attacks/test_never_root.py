"""The chain that makes other sandboxes an escape when they are started as root.

bwrap's flags do not stop code whose uid on the host is 0 from writing ``/proc/sys``: that asks for
the uid alone. With ``core_pattern`` written, a crash runs a program as root of the host.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from attacking import PROGRAMS, Inside
from host import ROOT, below, inits, told, uid

from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.sandbox import AsyncSandbox

pytestmark = pytest.mark.anyio

HARDENED = (
    "bwrap", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--unshare-all",
    "--unshare-user", "--disable-userns", "--cap-drop", "ALL", "--uid", "1000", "--gid", "1000",
    "--new-session", "--die-with-parent", "--",
)  # fmt: skip
"""Every hardening flag of bwrap, and none of our own walls."""


async def test_core_pattern_of_the_host(inside: Inside, tmp_path: Path) -> None:
    """Under every flag of bwrap alone root's sandboxed code may write it; under ours none may."""
    words = [*HARDENED, sys.executable, str(PROGRAMS / "settings.py")]
    naive = subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path)
    # Opened for writing only, nothing is written. A plain user's bwrap has no such power.
    assert told(naive.stdout)["/proc/sys/kernel/core_pattern"] == ("worked" if ROOT else "EACCES")

    tried = await inside("settings")

    assert tried["/proc/sys/kernel/core_pattern"] in {"EROFS", "EACCES"}


async def test_host_uid_of_every_process(sandbox: AsyncSandbox) -> None:
    """No process of a sandbox has the host's uid 0, be it agent, keeper, command or code."""
    async with sandbox.start_command(["cat"]) as process:
        await process.write(b"begun")
        assert await anext(process.stdout) == b"begun"
        (init,) = inits(os.getpid())
        inner = [init, *below(init)]
        uids = {uid(pid) for pid in inner}
        await process.close_stdin()
        await process.wait()
    assert len(inner) >= 3  # agent, keeper, command
    assert 0 not in uids
    (only,) = uids
    assert (only != os.geteuid()) is ROOT, "root drops; a plain user has one uid to give"


async def test_two_sandboxes_of_root_have_two_uids(
    sandbox: AsyncSandbox, client: AsyncSandboxClient
) -> None:
    """What one sandbox leaves or uses up of its uid is no other's: each has its own as root."""
    async with await client.create_sandbox("second"):
        uids = [uid(init) for init in inits(os.getpid())]
    assert len(uids) == 2
    assert len(set(uids)) == (2 if ROOT else 1)
