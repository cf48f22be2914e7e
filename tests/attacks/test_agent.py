"""Attacks on the agent by code of its own sandbox: if it ended, the host would be blamed."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from attacking import Inside, Outside

from sandbox_sdk.errors import SandboxEnded
from sandbox_sdk.sandbox import AsyncSandbox
from sandbox_sdk.values import EndKind

pytestmark = pytest.mark.anyio

SIGNALS = """
import os, signal
for number in signal.valid_signals():
    os.kill(AGENT, number)
"""
LIMITS = """
import resource
refused = 0
for name in ("CPU", "AS", "NOFILE", "NPROC", "DATA"):
    try:
        resource.prlimit(AGENT, getattr(resource, f"RLIMIT_{name}"), (0, 0))
    except PermissionError:
        refused += 1
refused
"""


@pytest.fixture
def victim() -> Iterator[subprocess.Popen[bytes]]:
    """Start a Python process of our own uid that serves nobody, as a positive control."""
    words = [sys.executable, "-c", "print(flush=True); input()"]
    with subprocess.Popen(words, stdin=-1, stdout=-1) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


async def test_signals_to_the_agent(
    sandbox: AsyncSandbox, agent: int, victim: subprocess.Popen[bytes]
) -> None:
    """No signal that code inside can send ends the agent; outside, one ends such a process."""
    victim.send_signal(signal.SIGINT)
    assert victim.wait() == -signal.SIGINT

    assert (await sandbox.run_code(f"AGENT = {agent}\n{SIGNALS}")).ok
    for _ in range(2):  # what was sent has been delivered once the first was served
        assert (await sandbox.run_command(f"echo alive; kill -INT {agent}")).stdout == "alive\n"
    await sandbox.run_code("import os; os.kill(-1, 9)")
    assert (await sandbox.run_command("echo alive")).stdout == "alive\n"


async def test_limits_of_the_agent(
    sandbox: AsyncSandbox, agent: int, victim: subprocess.Popen[bytes]
) -> None:
    """Code inside cannot lower the agent's limits; outside, those of a process of the same uid."""
    resource.prlimit(victim.pid, resource.RLIMIT_NPROC, (9, 9))
    assert resource.prlimit(victim.pid, resource.RLIMIT_NPROC) == (9, 9)

    assert (await sandbox.run_code(f"AGENT = {agent}\n{LIMITS}")).text == "5"
    own = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))"
    assert (await sandbox.run_code(own)).ok
    assert (await sandbox.run_command("echo alive")).stdout == "alive\n"


async def test_tracing_the_agent(
    inside: Inside, outside: Outside, agent: int, victim: subprocess.Popen[bytes]
) -> None:
    """Code inside neither traces the agent nor reads it nor takes what it holds open."""
    ways = ("trace", "read memory", "memory file", "take descriptor")
    free = outside("host_process", victim.pid, "input")
    assert {free[way] for way in ways} == {"worked"}

    tried = await inside("host_process", agent, "agent")

    assert {tried[way] for way in ways} <= {"EPERM", "EACCES"}


async def test_settings_of_the_agent(
    inside: Inside, outside: Outside, agent: int, victim: subprocess.Popen[bytes]
) -> None:
    """Code inside can neither offer the agent to the kernel that is out of memory, nor name it."""
    names = ("oom_score_adj", "comm", "coredump_filter", "clear_refs", "sched")
    free = outside("write_paths", *(f"/proc/{victim.pid}/{name}" for name in names))
    assert set(free.values()) == {"worked"}

    tried = await inside("write_paths", *(f"/proc/{agent}/{name}" for name in names))

    assert set(tried.values()) == {"EACCES"}


async def test_call_that_resists_its_end(
    sandbox: AsyncSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call whose end code inside prevents takes the sandbox along, which says why."""
    monkeypatch.setattr("sandbox_sdk.link.KILL_SECONDS", 0.0)  # no end is that quick
    done = await sandbox.run_command("sleep 1000", timeout=0.5)
    assert done.ended.kind is EndKind.TIMEOUT
    with pytest.raises(SandboxEnded, match="still ran after"):
        await sandbox.run_command("true")
