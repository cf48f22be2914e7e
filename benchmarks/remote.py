"""What a server and sealing add: remote over local <= 0.5 ms, sealed over plain <= 0.03 ms.

One server at a Unix socket, and its clients in this process: one whose channels are sealed, one
whose are not. A call is a statement in a kept context, where no process has to start. Beside them
the same on this machine without a server; a bare aiohttp server that sends as many bytes over a
WebSocket; and its handler of one small answer, beside our ``GET /v1/sandboxes/{id}``, as requests
for each second of processor time that the server's process took.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from pathlib import Path

import aiohttp
import anyio
from bench.measure import Case, Failed, Run, main
from bench.table import Promise
from bench.world import NO_POOL, judged

from sandbox_sdk import AsyncSandbox, AsyncSandboxClient
from sandbox_sdk.crypto_utils.identities import WORKER, identity
from sandbox_sdk.values import MIB

SEALED_OVER_PLAIN, REMOTE_OVER_LOCAL, BULK = 0.03e-3, 0.5e-3, 400e6
COUNT = 300
REPEAT = 20
BULK_EVERY = 5
BYTES = 64 * MIB
REQUESTS, AT_ONCE = 500, 16

LOCAL, PLAIN, SEALED = "statement, local", "statement, remote, plain", "statement, remote, sealed"
BULK_PLAIN, BULK_SEALED = "64 MiB out, plain", "64 MiB out, sealed"
BULK_BARE = "64 MiB, bare WebSocket"
OURS, BARE = "requests of a server", "requests of bare aiohttp"


@contextmanager
def started(words: list[str]) -> Generator[int]:
    """Run a server for the block, from when it says that it is ready; give its process id."""
    environment = {**os.environ, "SANDBOX_ORCHESTRATOR_POOL_SIZE": "0"}
    with subprocess.Popen(
        [sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    ) as server:
        try:
            if server.stdout is None or not server.stdout.readline():
                raise Failed("a server did not start")
            yield server.pid
        finally:
            server.terminate()


async def statement(sandbox: AsyncSandbox) -> float:
    """Return the seconds of one statement."""
    with judged():
        began = time.perf_counter()
        done = await sandbox.run_code("1", context="main")
        seconds = time.perf_counter() - began
    if not done.ok:
        raise Failed(str(done.ended))
    return seconds


async def bulk(sandbox: AsyncSandbox) -> float:
    """Return how many bytes of a file come out in a second."""
    with judged():
        began, size = time.perf_counter(), 0
        async for data in sandbox.files.read_stream("zeros"):
            size += len(data)
    return rate(began, size)


async def bare_bulk(session: aiohttp.ClientSession) -> float:
    """Return how many bytes of a WebSocket come in a second."""
    began, size = time.perf_counter(), 0
    async with session.ws_connect("/stream", params={"bytes": str(BYTES)}) as socket:
        async for message in socket:
            size += len(message.data)
    return rate(began, size)


def rate(began: float, size: int) -> float:
    """Return bytes per second of a transfer that is over.

    Raises:
        Failed: It was of another size.
    """
    if size != BYTES:
        raise Failed(f"{size} bytes came instead of {BYTES}")
    return size / (time.perf_counter() - began)


async def requests(session: aiohttp.ClientSession, path: str, pid: int) -> float:
    """Return how many requests a server answers in a second of its processor time."""
    before = cpu_seconds(pid)

    async def ask() -> None:
        for _ in range(REQUESTS // AT_ONCE):
            async with session.get(path) as response:
                if response.status != 200:
                    raise Failed(f"{path} was answered with {response.status}")
                await response.read()

    async with anyio.create_task_group() as group:
        for _ in range(AT_ONCE):
            group.start_soon(ask)
    return REQUESTS // AT_ONCE * AT_ONCE / (cpu_seconds(pid) - before)


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process took so far."""
    return sum(
        int(each.read_text().split()[0]) / 1e9
        for each in Path(f"/proc/{pid}/task").glob("*/schedstat")
    )


async def body(run: Run) -> list[Promise]:
    """Measure all in turn."""
    with tempfile.TemporaryDirectory() as sockets:  # whose names must be short
        ours, bare = f"{sockets}/ours", f"{sockets}/bare"
        state = run.state / "server"
        serve = ["-m", "sandbox_sdk", "serve", "--socket", ours, "--state-dir", str(state)]
        script = str(Path(__file__).with_name("bench") / "bare_server.py")
        with (
            started([*serve, "--allow", "host-template"]) as pid,
            started([script, bare]) as bare_pid,
        ):
            await _measure(run, f"unix://{ours}", bare, (pid, bare_pid))
    return [
        run.promise(LOCAL, unit="us"),
        run.promise(PLAIN, unit="us", against=LOCAL),
        run.promise(SEALED, unit="us", against=LOCAL),
        run.over(PLAIN, LOCAL, unit="us", goal=REMOTE_OVER_LOCAL),
        run.over(SEALED, PLAIN, unit="us", goal=SEALED_OVER_PLAIN),
        run.promise(BULK_PLAIN, unit="MB/s", against=BULK_BARE, more=True),
        run.promise(BULK_SEALED, unit="MB/s", goal=BULK, against=BULK_BARE, more=True),
        run.promise(OURS, unit="/s", against=BARE, more=True),
    ]


async def _measure(run: Run, endpoint: str, bare: str, pids: tuple[int, int]) -> None:
    pin = identity(run.state / "server" / "keys", WORKER).public.to_text()
    async with AsyncExitStack() as stack:

        async def sandbox(name: str, endpoint: str | None, **security: object) -> AsyncSandbox:
            client = AsyncSandboxClient(
                config={**NO_POOL, "security": security},
                endpoint=endpoint,
                state_dir=run.state / name,
            )
            await stack.enter_async_context(client)
            made = await client.create_sandbox(name)
            await stack.enter_async_context(made)
            await made.run_command(["truncate", "-s", str(BYTES), "zeros"])
            return made

        local = await sandbox("local", None)
        plain = await sandbox("plain", endpoint, seal_channels=False)
        sealed = await sandbox("sealed", endpoint, worker_key=pin)

        async def session(path: str) -> aiohttp.ClientSession:
            return await stack.enter_async_context(
                aiohttp.ClientSession("http://localhost", connector=aiohttp.UnixConnector(path))
            )

        to_ours, to_bare = await session(endpoint.removeprefix("unix://")), await session(bare)
        record = f"/v1/sandboxes/{plain.id}"
        calls: dict[str, Callable[[], Awaitable[float]]] = {
            LOCAL: partial(statement, local),
            PLAIN: partial(statement, plain),
            SEALED: partial(statement, sealed),
        }
        transfers: dict[str, Callable[[], Awaitable[float]]] = {
            BULK_PLAIN: partial(bulk, plain),
            BULK_SEALED: partial(bulk, sealed),
            BULK_BARE: partial(bare_bulk, to_bare),
            OURS: partial(requests, to_ours, record, pids[0]),
            BARE: partial(requests, to_bare, "/answer", pids[1]),
        }
        cases = [
            *(Case(label=each, measure=call, repeat=REPEAT) for each, call in calls.items()),
            *(Case(label=each, measure=call, every=BULK_EVERY) for each, call in transfers.items()),
        ]
        await run.alternate(cases, rounds=-(-run.count // REPEAT))


if __name__ == "__main__":
    sys.exit(main("remote", __doc__, COUNT, body))
