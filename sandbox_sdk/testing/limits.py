"""What isolation and limits promise, as far as code inside can tell."""

from __future__ import annotations

import math

import anyio

from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.policies import LEVELS
from sandbox_sdk.testing.inside import held_by
from sandbox_sdk.values import EndKind

_PATIENCE_SECONDS = 5.0


async def isolation_is_proven_wall_by_wall(client: AsyncSandboxClient) -> None:
    """A set-up sandbox says what is in force, and names what holds each limit."""
    async with await client.create_sandbox("contract") as sandbox:
        isolation, limits = sandbox.isolation, sandbox.limits
    assert isolation is not None
    assert {wall.name for wall in isolation.walls} == set(LEVELS[isolation.level].walls)
    assert all(wall.in_force and wall.detail for wall in isolation.walls)
    held = {limit.name: limit.held_by for limit in limits}
    assert {"memory", "cpu", "pids", "disk", "output", "timeout", "idle_timeout"} <= held.keys()
    assert all(held.values())


async def memory_is_bounded(client: AsyncSandboxClient) -> None:
    """Code that takes more memory than allowed fails; where a group counts, as ``oom``."""
    code = "data = []\nwhile True: data.append(bytearray(b'x' * 10_000_000))"
    async with await client.create_sandbox("contract", resources={"memory": "128MiB"}) as sandbox:
        done = await sandbox.run_code(code, timeout=60)
        held = {limit.name: limit.held_by for limit in sandbox.limits}
    if held["memory"].startswith("cgroup"):
        assert (done.ended.kind, done.ended.limit) == (EndKind.OOM, "memory")
        assert done.ended.limit_value == 128 * 1024 * 1024
    else:
        told = done.error is not None and done.error.name == "MemoryError"
        assert told or done.ended.kind is EndKind.OOM


async def a_verdict_goes_to_the_call_it_belongs_to(client: AsyncSandboxClient) -> None:
    """A call that fails beside one that ends for memory is not blamed for it."""
    ends: dict[str, EndKind] = {}
    async with await client.create_sandbox("contract", resources={"memory": "128MiB"}) as sandbox:

        async def call(name: str, script: str) -> None:
            ends[name] = (await sandbox.run_command(script, timeout=60)).ended.kind

        async with anyio.create_task_group() as group:
            group.start_soon(call, "innocent", "sleep 1; exit 1")
            group.start_soon(call, "guilty", "exec python -c 'x = b\"x\" * 1_000_000_000'")
        held = {limit.name: limit.held_by for limit in sandbox.limits}
    assert ends["innocent"] is EndKind.NONZERO
    if held["memory"].startswith("cgroup"):
        assert ends["guilty"] is EndKind.OOM


async def processes_are_bounded(client: AsyncSandboxClient) -> None:
    """A fork bomb hits its limit; the sandbox goes on after it."""
    code = (
        "import os, time\n"
        "pids = []\n"
        "try:\n"
        "    while True:\n"
        "        pids.append(os.fork())\n"
        "        if pids[-1] == 0: time.sleep(1000)\n"
        "except BlockingIOError: pass\n"
        "print(len(pids))\n"
        "open('pids', 'w').write(' '.join(map(str, pids)) + '\\n')\n"
        "os._exit(1)"
    )
    async with await client.create_sandbox("contract", resources={"pids": 20}) as sandbox:
        done = await sandbox.run_code(code, timeout=30)
        held = held_by(sandbox, "pids")
        if held == "watchdog":  # which ends the sandbox
            assert (done.ended.kind, done.ended.limit) == (EndKind.PIDS, "pids")
            return
        # Without a fork, which the shell would try again for a quarter of a minute.
        killed = await sandbox.run_command("read -a pids < pids; kill -KILL ${pids[*]}")
        with anyio.fail_after(_PATIENCE_SECONDS):
            # What was killed counts until it is gone, so a call may yet find no process left.
            while not (after := await sandbox.run_command("echo alive")).ok:
                pass
    assert killed.ok, killed.stderr
    assert 10 <= int(done.stdout) <= 20
    if held.startswith("cgroup"):
        assert (done.ended.kind, done.ended.limit) == (EndKind.PIDS, "pids")
    assert after.stdout == "alive\n"


async def command_without_a_process_is_told(client: AsyncSandboxClient) -> None:
    """A command that the limit left no process for is told apart from one that failed.

    A watchdog refuses none: it ends the sandbox.
    """
    hog = """
import os, signal, sys
try:
    while os.fork(): pass
    signal.pause()
except BlockingIOError:
    print("none left", flush=True)
    sys.stdin.readline()
"""
    async with (
        await client.create_sandbox("contract", resources={"pids": 8}) as sandbox,
        sandbox.start_command(["python", "-c", hog]) as process,
    ):
        async for _ in process.stdout:
            break
        if held_by(sandbox, "pids") == "watchdog":
            assert (await process.wait()).kind is EndKind.PIDS
            return
        done = await sandbox.run_command("true")
        held = {limit.name: limit.held_by for limit in sandbox.limits}
        await process.write(b"\n")
        await process.wait()
        # The one process that is free again is enough.
        assert (await sandbox.run_command("true")).ok
    if held["pids"].startswith("cgroup"):
        assert (done.ended.kind, done.exit_code) == (EndKind.PIDS, None)
        assert done.ended.safe_to_retry


async def disk_is_bounded(client: AsyncSandboxClient) -> None:
    """Code that fills its workspace ends with ``disk``: the call, or the whole sandbox."""
    script = "i=0; while head -c 4000000 /dev/urandom > f$i; do i=$((i+1)); done; exit 1"
    sandbox = await client.create_sandbox("contract", resources={"disk": "32MiB"})
    done = await sandbox.run_command(script, timeout=60)
    if held_by(sandbox, "disk") == "mount":
        assert "No space left on device" in done.stderr
        again = await sandbox.run_command("exit 3")
        assert (again.ended.kind, again.ended.detail) == (EndKind.NONZERO, "the workspace is full")
        taken = await sandbox.run_command("du -s -B 1 . | cut -f 1")
        assert int(taken.stdout) <= 32 * 1024 * 1024
    assert (done.ended.kind, done.ended.limit) == (EndKind.DISK, "disk")
    assert done.ended.limit_value == 32 * 1024 * 1024
    await client.delete_sandbox(sandbox.id)


async def many_files_are_bounded(client: AsyncSandboxClient) -> None:
    """Code that makes too many files ends with ``disk``: the call, or the whole sandbox."""
    code = "n = 0\nwhile True:\n    open(f'f{n}', 'w').close()\n    n += 1"
    sandbox = await client.create_sandbox("contract", resources={"disk_files": 2000})
    done = await sandbox.run_command(["python", "-c", code], timeout=60)
    if held_by(sandbox, "disk") == "mount":
        assert "No space left on device" in done.stderr
    assert (done.ended.kind, done.ended.limit) == (EndKind.DISK, "disk_files")
    assert done.ended.limit_value == 2000
    await client.delete_sandbox(sandbox.id)


async def tmp_and_shm_are_bounded(client: AsyncSandboxClient) -> None:
    """``/tmp`` and ``/dev/shm`` are full at their size, or writing more ends the sandbox."""
    async with await client.create_sandbox("contract", resources={"tmp": "8MiB"}) as sandbox:
        if held_by(sandbox, "tmp") == "watchdog":
            done = await sandbox.run_command("head -c 16M /dev/zero > $TMPDIR/x; sleep 1000")
            assert (done.ended.kind, done.ended.limit) == (EndKind.DISK, "tmp")
            return
        for folder in ("/tmp", "/dev/shm"):  # noqa: S108 - inside the sandbox
            done = await sandbox.run_command(f"head -c 16M /dev/zero > {folder}/x")
            assert not done.ok
            assert "No space left" in done.stderr
            size = await sandbox.run_command(f"stat -c %s {folder}/x; rm {folder}/x")
            assert int(size.stdout) <= 8 * 1024 * 1024


async def open_files_are_bounded(client: AsyncSandboxClient) -> None:
    """No process opens more files than allowed."""
    code = "files = [open('/dev/null') for _ in range(100)]"
    async with await client.create_sandbox("contract", resources={"open_files": 64}) as sandbox:
        done = await sandbox.run_code(code)
    assert done.error is not None
    assert "Too many open files" in done.error.message


async def cores_are_those_asked_for(client: AsyncSandboxClient) -> None:
    """``nproc`` tells the cores that code may count on."""
    async with await client.create_sandbox("contract", resources={"cpu": 0.5}) as sandbox:
        done = await sandbox.run_command("nproc")
    assert int(done.stdout) == math.ceil(0.5)


async def cpu_is_bounded(client: AsyncSandboxClient) -> None:
    """Processes that spin on every core, whatever else they ask for, get their share together."""
    spin = """
import os, time
os.sched_setaffinity(0, range(os.cpu_count()))
for _ in range(2): os.fork()
end = time.monotonic() + 2
while time.monotonic() < end: pass
"""
    async with await client.create_sandbox("contract", resources={"cpu": 0.25}) as sandbox:
        before, began = (await sandbox.usage()).cpu_seconds or 0.0, anyio.current_time()
        assert (await sandbox.run_command(["python", "-c", spin], timeout=30)).ok
        took = anyio.current_time() - began
        used = ((await sandbox.usage()).cpu_seconds or 0.0) - before
        held = {limit.name: limit.held_by for limit in sandbox.limits}
    if held["cpu"] != "none":
        assert used / took < 0.25 * 1.3


async def usage_is_told(client: AsyncSandboxClient) -> None:
    """A running sandbox tells what it uses; one that has ended, what it used in all."""
    async with await client.create_sandbox("contract") as sandbox:
        await sandbox.run_code("sum(range(3_000_000))")
        used = await sandbox.usage()
        snapshot = await (await client.get_orchestrator()).monitor_resources()
    assert used.cpu_seconds is not None
    assert used.cpu_seconds > 0
    assert used.memory_bytes is not None
    assert used.memory_bytes > 1_000_000
    assert used.pids is not None
    assert used.pids >= 1
    assert sandbox.id in [usage.sandbox_id for usage in snapshot.sandboxes]
    after = await sandbox.usage()
    assert after.final
    assert after.cpu_seconds is not None
    assert after.cpu_seconds >= used.cpu_seconds
    assert (after.memory_bytes, after.pids) == (0, 0)


CHECKS = (
    isolation_is_proven_wall_by_wall,
    memory_is_bounded,
    a_verdict_goes_to_the_call_it_belongs_to,
    processes_are_bounded,
    command_without_a_process_is_told,
    disk_is_bounded,
    many_files_are_bounded,
    tmp_and_shm_are_bounded,
    open_files_are_bounded,
    cores_are_those_asked_for,
    cpu_is_bounded,
    usage_is_told,
)
