"""Attacks by using up: processes, memory, disk and output. They hit the one who tries only."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import anyio
import pytest
from attacking import Outside
from host import (
    ROOT,
    below,
    forget_peak,
    free_bytes,
    inits,
    resident_bytes,
    soon,
    status,
    told,
)

from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.sandbox import AsyncSandbox
from sandbox_sdk.values import MIB, EndKind

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(60)]

FORK_BOMB = """
import os, time
most = int(MOST)
made = refused = 0
while made < most:
    try:
        if os.fork() == 0:
            if GENTLE: os.read(0, 1)
            while not GENTLE:
                try: os.fork()
                except OSError: time.sleep(0.01)
            os._exit(0)
        made += 1
    except BlockingIOError:
        refused += 1
        break
print(made, refused, flush=True)
while not GENTLE: time.sleep(1)
"""
MEMORY = {
    "heap": "kept = []\nwhile True: kept.append(bytearray(b'x' * 4_000_000))",
    "children that map": (
        "import mmap, os, time\n"
        "for _ in range(12):\n"
        "    if os.fork() == 0:\n"
        "        area = mmap.mmap(-1, 20_000_000)\n"
        "        area.write(b'x' * 20_000_000)\n"
        "        time.sleep(0.5)\n"
        "        os._exit(0)\n"
        "for _ in range(12): os.wait()\n"
        "raise SystemExit(1)"
    ),
    "memory file": (
        "import os\nfile = os.memfd_create('hog')\nwhile True: os.write(file, b'x' * 4_000_000)"
    ),
    "shared memory": (
        "import mmap\n"
        "area = mmap.mmap(-1, 500_000_000, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)\n"
        "for _ in range(125): area.write(b'x' * 4_000_000)"
    ),
}
FILES_IN_MEMORY = {
    "files in /dev/shm": (
        "for number in range(1000): open(f'/dev/shm/{number}', 'wb').write(b'x' * 4_000_000)"
    ),
    "files in /tmp": (
        "for number in range(1000): open(f'/tmp/{number}', 'wb').write(b'x' * 4_000_000)"
    ),
    "many empty files in /tmp": (
        "import os\n"
        "number = 0\n"
        "while True:\n"
        "    os.symlink('x' * 200, f'/tmp/{number}')\n"
        "    number += 1"
    ),
}
COUNT = 'touch f; python -c "import os, time\nfor n in range(600): {}\ntime.sleep(60)"'
DISK = {
    "one file": "while head -c 100M /dev/zero > big; do sleep 0.1; done",
    "many files": "i=0; while head -c 400000 /dev/zero > f$i; do i=$((i+1)); done",
    "folders": COUNT.format("os.makedirs(f'{n}/a/b/c')"),
    "many names": COUNT.format("os.link('f', str(n))"),
}
BOUND = 64 * 1024
FLOODS = {
    "no line ends": "while True: out.write(b'x' * 65536)",
    "lines": "while True: out.write(b'line\\n' * 16384)",
    "binary": "import os\ndata = os.urandom(65536)\nwhile True: out.write(data)",
    "single bytes": "while True: out.write(b'.'); out.flush()",
}


async def test_a37_fork_bomb(client: AsyncSandboxClient) -> None:
    """A fork bomb runs into its sandbox's bound; the neighbour answers, and the kill gets all."""
    gentle = FORK_BOMB.replace("MOST", "60").replace("GENTLE", "True")
    outside = subprocess.run(
        [sys.executable, "-c", gentle], capture_output=True, check=True, stdin=subprocess.DEVNULL
    )
    assert outside.stdout.split() == [b"60", b"0"]
    bomb = FORK_BOMB.replace("MOST", "100000").replace("GENTLE", "False")
    async with (
        await client.create_sandbox("bomb", resources={"pids": 50}) as sandbox,
        await client.create_sandbox("neighbour") as neighbour,
    ):
        async with sandbox.start_command(["python", "-c", bomb]) as process:
            made = (await anext(process.stdout)).split()
            count = len(below(os.getpid()))
            began = time.monotonic()
            for _ in range(5):
                assert (await neighbour.run_command("echo alive")).stdout == "alive\n"
            assert time.monotonic() - began < 5
            # Another call of the same sandbox finds room or not, and ends either way.
            other = await sandbox.run_command("true", timeout=5)
        assert int(made[0]) < 50
        assert count < 100
        assert other.ended.kind in (EndKind.OK, EndKind.PIDS)
        # It recovers: the next command finds room.
        assert (await sandbox.run_command("echo alive")).stdout == "alive\n"


@pytest.mark.parametrize("way", MEMORY)
async def test_a38_memory(client: AsyncSandboxClient, way: str) -> None:
    """Whatever kind of memory code takes, it gets no more than its sandbox's; then it fails."""
    await _take_memory(client, MEMORY[way])


@pytest.mark.parametrize("way", FILES_IN_MEMORY)
async def test_a38_files_in_memory(client: AsyncSandboxClient, way: str) -> None:
    """So do files that lie in memory, be they only names."""
    async with await client.create_sandbox("files") as sandbox:
        assert (await sandbox.run_command("touch /dev/shm/file /tmp/file")).ok
    await _take_memory(client, FILES_IN_MEMORY[way])


async def _take_memory(client: AsyncSandboxClient, code: str) -> None:
    """Run code that takes memory until it is stopped.

    Where a control group holds the bound the end is ``oom``. Where none does, the watchdog ends
    the sandbox, or the process's own limit makes the allocation fail.
    """
    resources = {"memory": "96MiB", "tmp": "300MiB"}
    async with await client.create_sandbox("hog", resources=resources) as sandbox:
        held = {limit.name: limit.held_by for limit in sandbox.limits}["memory"]
        done = await sandbox.run_code(code, timeout=15)
    if held.startswith("cgroup"):
        assert (done.ended.kind, done.ended.limit) == (EndKind.OOM, "memory")
    else:
        assert held == "watchdog"
        assert not done.ok


@pytest.mark.parametrize("way", DISK)
async def test_a39_disk(client: AsyncSandboxClient, way: str, tmp_path: Path) -> None:
    """Filling the workspace meets its bound, and deleting it gives the host's space back.

    A watchdog ends the sandbox; the size of a mount fails the write, and the sandbox goes on.
    """
    resources = {"disk": "16MiB", "disk_files": 500}
    before = free_bytes(tmp_path)
    sandbox = await client.create_sandbox("full", resources=resources)
    await sandbox.setup()
    held = {limit.name: limit.held_by for limit in sandbox.limits}["disk"]
    done = await sandbox.run_command(DISK[way] + "; exit 7", timeout=15)
    if held == "watchdog":
        assert done.ended.kind is EndKind.DISK
        assert done.ended.limit in ("disk", "disk_files")
    else:
        assert done.exit_code == 7
        assert "No space left on device" in done.stderr
        assert (await sandbox.run_command("rm -r * && touch room")).ok
    await client.delete_sandbox(sandbox.id)
    size = os.statvfs(tmp_path).f_blocks * os.statvfs(tmp_path).f_frsize
    assert abs(free_bytes(tmp_path) - before) < size / 100


async def test_a39_sparse_file(client: AsyncSandboxClient, tmp_path: Path) -> None:
    """A file larger than its bound is refused, sparse or not; a sparse one takes no space."""
    resources = {"disk": "16MiB", "file_size": "64MiB"}
    async with await client.create_sandbox("sparse", resources=resources) as sandbox:
        fits = await sandbox.run_command("truncate -s 60M sparse && stat -c %s sparse")
        larger = await sandbox.run_command("truncate -s 5G sparse-too")
        collected = await sandbox.collect(["sparse*"], tmp_path / "kept")
    assert fits.stdout.strip() == str(60 * 1024 * 1024)
    assert not larger.ok
    assert sum(artifact.size_bytes for artifact in collected.artifacts) <= 60 * 1024 * 1024


@pytest.mark.parametrize("way", FLOODS)
async def test_a40_output_flood(client: AsyncSandboxClient, way: str) -> None:
    """Endless output is cut at its bound and said to be; our own memory stays as it was."""
    code = f"import sys\nout = sys.stdout.buffer\n{FLOODS[way]}"
    async with await client.create_sandbox("flood", resources={"output": BOUND}) as sandbox:
        await sandbox.run_command("true")
        forget_peak()
        before = resident_bytes()
        done = await sandbox.run_command(["python", "-c", code], timeout=15)
        peak = resident_bytes("VmHWM")
        assert (await sandbox.run_command("echo alive")).stdout == "alive\n"
    assert (done.ended.kind, done.ended.limit) == (EndKind.OUTPUT_LIMIT, "output")
    assert done.ended.truncated
    assert len(done.stdout_bytes) == done.ended.bytes_kept == BOUND
    assert done.ended.bytes_seen > BOUND
    assert peak - before < 16 * MIB


async def test_a40_slow_drip(sandbox: AsyncSandbox) -> None:
    """A byte now and then does not keep a call alive past its time."""
    drip = "while true; do printf .; sleep 0.1; done"
    began = time.monotonic()
    done = await sandbox.run_command(drip, timeout=0.5)
    assert time.monotonic() - began < 3
    assert done.ended.kind is EndKind.TIMEOUT
    assert set(done.stdout) == {"."}


async def test_a40_flood_that_nobody_reads(sandbox: AsyncSandbox) -> None:
    """A started command whose output is not read waits; it fills neither us nor the agent."""
    forget_peak()
    before = resident_bytes()
    (init,) = inits(os.getpid())
    async with sandbox.start_command(["sh", "-c", "yes & wait"]) as process:
        await anyio.wait_all_tasks_blocked()
        first = await anext(process.stdout)
        assert first.startswith(b"y\ny\n")
        assert await soon(lambda: _sleeping(init), seconds=5)
    assert resident_bytes("VmHWM") - before < 16 * MIB


def _sleeping(init: int) -> bool:
    """Whether ``yes`` below PID 1 waits for its pipe to be read."""
    return any(
        status(pid).get("Name") == "yes" and status(pid)["State"].startswith("S")
        for pid in below(init)
    )


@pytest.mark.parametrize("what", ["pipes", "watches", "terminals", "timers", "locks", "files"])
async def test_a41_what_is_counted_per_uid(
    client: AsyncSandboxClient, programs: dict[str, str], sandbox: AsyncSandbox, what: str
) -> None:
    """What one sandbox has used up is there for another, and it can itself be told what to do.

    A plain user has one uid for all: pipes and watches are then what they share.
    """
    words = ["python", "attacks/take_all.py", what]
    async with (
        await client.create_sandbox("neighbour", files=programs) as neighbour,
        sandbox.start_command([*words, "5000"]) as hog,
    ):
        had, how = told((await anext(hog.stdout)).decode())[what].split()
        beside = told((await neighbour.run_command([*words, "10"])).stdout)
        assert (await neighbour.run_command("echo alive")).stdout == "alive\n"
        assert (await neighbour.run_code("6 * 7")).text == "42"
        again = await sandbox.run_command("echo alive")
    assert int(had) > 10
    assert how != "enough" or what in ("timers", "locks")
    assert again.stdout == "alive\n"
    if ROOT or what not in ("pipes", "watches"):
        assert beside[what] == "10 enough"


async def test_a44_processors(
    client: AsyncSandboxClient, programs: dict[str, str], outside: Outside
) -> None:
    """No number of spinning processes gets more than the quota, by whatever means they ask."""
    free = outside("spin", 16)
    assert float(free["share"]) > 0.5
    assert free["all cores"] == "worked"
    resources = {"cpu": 0.25}
    async with await client.create_sandbox("spins", files=programs, resources=resources) as sandbox:
        held = {limit.name: limit.held_by for limit in sandbox.limits}["cpu"]
        done = await sandbox.run_command(["python", "attacks/spin.py", "16"], timeout=15)
    tried = told(done.stdout)
    assert tried["nicer"] in {"EACCES", "EPERM"}
    assert tried["real time"] == "EPERM"
    if held.startswith("cgroup"):
        assert float(tried["share"]) < 0.45
    else:  # a mask of cores, which code may widen: the limit says so
        assert held == "none"
