"""What the life of a sandbox promises."""

from __future__ import annotations

from collections.abc import Awaitable

import anyio

from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.errors import (
    ConfigError,
    IdleTimeout,
    IsolationError,
    LifetimeExceeded,
    SandboxClosed,
    SandboxError,
    SandboxNotFound,
)
from sandbox_sdk.testing.inside import PROGRAMS, has
from sandbox_sdk.values import EndKind, SandboxState

UNKNOWN = "sb_00000000000000000000000000"


async def _raises(kind: type[SandboxError], call: Awaitable[object]) -> SandboxError:
    try:
        await call
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was not raised")


async def first_use_sets_up(client: AsyncSandboxClient) -> None:
    """Creating starts nothing; the first call that needs it does; again is nothing."""
    sandbox = await client.create_sandbox("contract")
    assert (sandbox.info.state, sandbox.isolation) == (SandboxState.CREATED, None)
    assert (await sandbox.run_command("echo $$")).ok
    assert sandbox.info.state is SandboxState.RUNNING
    before = (await sandbox.run_command("cat /proc/sys/kernel/random/uuid > id; cat id")).stdout
    await sandbox.setup()
    assert (await sandbox.files.read_text("id")) == before
    await sandbox.cleanup()


async def cleanup_ends_it_and_keeps_the_workspace(client: AsyncSandboxClient) -> None:
    """After cleanup calls are refused; set-up starts anew over the same files."""
    sandbox = await client.create_sandbox("contract", files={"initial": "first"})
    await sandbox.files.write("kept", "yes")
    await sandbox.files.write("initial", "changed")
    await sandbox.cleanup()
    await sandbox.cleanup()
    assert sandbox.info.state is SandboxState.STOPPED
    assert sandbox.info.ended is not None
    assert sandbox.info.ended.kind is EndKind.OK
    await _raises(SandboxClosed, sandbox.run_command("true"))
    await _raises(SandboxClosed, sandbox.run_code("1"))
    await _raises(SandboxClosed, sandbox.files.read("kept"))
    await sandbox.setup()
    assert await sandbox.files.read_text("kept") == "yes"
    assert await sandbox.files.read_text("initial") == "changed"
    await sandbox.cleanup()


async def records_are_found_listed_and_deleted(client: AsyncSandboxClient) -> None:
    """A sandbox is found by its id until it is deleted, then nowhere."""
    sandbox = await client.create_sandbox("contract", metadata={"who": "me"})
    found = await client.get_sandbox(sandbox.id)
    assert (found.id, found.name) == (sandbox.id, "contract")
    assert found.info.spec.metadata == {"who": "me"}
    assert sandbox.id in [info.id for info in await client.list_sandboxes()]
    await client.delete_sandbox(sandbox.id)
    await _raises(SandboxNotFound, client.get_sandbox(sandbox.id))
    await _raises(SandboxNotFound, client.delete_sandbox(sandbox.id))
    async with await client.create_sandbox("contract") as sandbox:
        await client.delete_sandbox(sandbox.id)
        await _raises(SandboxClosed, sandbox.run_command("true"))
    assert sandbox.id not in [info.id for info in await client.list_sandboxes()]
    await _raises(SandboxError, sandbox.run_command("true"))


async def unknown_ids_are_not_found(client: AsyncSandboxClient) -> None:
    """An id that never was, or is no id, is not found."""
    for unknown in (UNKNOWN, "", "../../etc", "sb_\n", "x" * 1000):
        await _raises(SandboxNotFound, client.get_sandbox(unknown))
        await _raises(SandboxNotFound, client.delete_sandbox(unknown))


async def nonsense_creates_nothing(client: AsyncSandboxClient) -> None:
    """Every fault is told at once, with its path, and nothing is created."""
    before = await client.list_sandboxes()
    error = await _raises(
        ConfigError,
        client.create_sandbox(
            "a\nb", resources={"memory": "2 potatoes", "cpus": 1}, timeout=-1, env={"A=B": "x"}
        ),
    )
    text = str(error)
    for path in ("name", "resources.memory", "resources.cpus", "timeout", "env"):
        assert path in text, text
    await _raises(ConfigError, client.create_sandbox("a\0b"))
    await _raises(IsolationError, client.create_sandbox("x", security_level="maximum"))
    assert await client.list_sandboxes() == before


async def odd_names_are_only_names(client: AsyncSandboxClient) -> None:
    """A name that looks like an option or a path stays a name."""
    for name in ("--bind", "-rf /", "$(reboot)", "../..", "名前"):
        async with await client.create_sandbox(name) as sandbox:
            named = (await sandbox.run_command("hostname")).stdout == "sandbox\n"
            assert named == has(sandbox, "uts_namespace")
            assert (await client.get_sandbox(sandbox.id)).name == name


async def lifetime_ends_it(client: AsyncSandboxClient) -> None:
    """At its lifetime a sandbox ends, and the call in flight with it."""
    sandbox = await client.create_sandbox("contract", timeout=1.0)
    done = await sandbox.run_command("echo before; sleep 1000")
    assert (done.ended.kind, done.ended.limit) == (EndKind.TIMEOUT, "lifetime")
    assert done.stdout == "before\n"
    error = await _raises(LifetimeExceeded, sandbox.run_command("true"))
    assert sandbox.id in str(error)
    await sandbox.setup()
    assert (await sandbox.run_command("true")).ok
    await sandbox.cleanup()


async def idle_time_ends_it(client: AsyncSandboxClient) -> None:
    """Without a call for its idle time a sandbox ends; a call in flight is no idleness."""
    sandbox = await client.create_sandbox("contract", idle_timeout=0.5)
    assert (await sandbox.run_command("sleep 1")).ok
    assert (await sandbox.run_code("import time; time.sleep(1)", context="kept")).ok
    with anyio.fail_after(10):
        while sandbox.info.state is SandboxState.RUNNING:  # noqa: ASYNC110 - no call tells it
            await anyio.sleep(0.02)
    await _raises(IdleTimeout, sandbox.run_command("true"))


async def calls_run_at_the_same_time(client: AsyncSandboxClient) -> None:
    """Many calls on one sandbox, and many sandboxes, do not wait for each other."""
    results: dict[int, str] = {}
    async with await client.create_sandbox("contract") as sandbox:

        async def call(number: int) -> None:
            done = await sandbox.run_command(f"sleep 0.2; echo {number}")
            results[number] = done.stdout

        async with anyio.create_task_group() as group:
            for number in range(10):
                group.start_soon(call, number)
    assert results == {number: f"{number}\n" for number in range(10)}


async def cancelled_call_leaves_nothing(client: AsyncSandboxClient) -> None:
    """A call that is given up is ended inside too, and the sandbox goes on."""
    async with await client.create_sandbox("contract") as sandbox:
        await sandbox.setup()
        with anyio.move_on_after(0.5):
            await sandbox.run_command("setsid sleep 1000 & sleep 1000")
        left = await sandbox.run_command(PROGRAMS)
    assert "sleep" not in left.stdout


CHECKS = (
    first_use_sets_up,
    cleanup_ends_it_and_keeps_the_workspace,
    records_are_found_listed_and_deleted,
    unknown_ids_are_not_found,
    nonsense_creates_nothing,
    odd_names_are_only_names,
    lifetime_ends_it,
    idle_time_ends_it,
    calls_run_at_the_same_time,
    cancelled_call_leaves_nothing,
)
