"""What watching files promises."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator

from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.errors import FileError, SandboxEnded
from sandbox_sdk.testing.inside import workspace
from sandbox_sdk.values import FileEvent


async def _until(events: AsyncIterator[FileEvent], name: str, place: str) -> list[str]:
    """Return what is told until something of this name is created, each as one text.

    Args:
        events: What is told.
        name: What is waited for.
        place: The workspace.
    """
    told: list[str] = []
    async for event in events:
        path = event.path.removeprefix(f"{place}/")
        if path.rpartition("/")[2] == name:
            break
        old = "" if event.old_path is None else event.old_path.removeprefix(f"{place}/") + " "
        told.append(f"{event.kind} {old}{path}{'/' if event.is_folder else ''}")
    return told


async def _kinds(events: AsyncIterator[FileEvent], count: int) -> list[str]:
    return [(await anext(events)).kind for _ in range(count)]


async def changes_are_told_in_order(client: AsyncSandboxClient) -> None:
    """From the start on every change is told: by commands, by code, by file operations."""
    async with await client.create_sandbox("contract", files={"w/d/old": "old"}) as sandbox:
        events = aiter(sandbox.files.watch("w"))
        first, place = await anext(events), await workspace(sandbox)
        assert (first.kind, first.path, first.is_folder) == ("started", f"{place}/w", True)
        await sandbox.run_command(
            "cd w; echo a > d/new; echo b >> d/old; mv d/old d/moved; rm d/new; mv d f; "
            "touch f/last; mv f/last ..; mv f ..; touch ../f/unseen; mv ../last back; touch end"
        )
        told = await _until(events, "end", place)
        await sandbox.files.write("w/written", "1")
        assert await _kinds(events, 3) == ["created", "modified", "moved"]
        await sandbox.run_code("open('w/written', 'a').write('2')")
        assert await _kinds(events, 1) == ["modified"]
    assert told == [
        "created w/d/new", "modified w/d/new", "modified w/d/old", "moved w/d/old w/d/moved",
        "removed w/d/new", "moved w/d w/f/", "created w/f/last", "removed w/f/last",
        "removed w/f/", "created w/back",
    ]  # fmt: skip


async def new_folders_are_watched(client: AsyncSandboxClient) -> None:
    """What is made in a new folder is told, each once, however soon it was made."""
    async with await client.create_sandbox("contract") as sandbox:
        place = await workspace(sandbox)
        events = aiter(sandbox.files.watch())
        await anext(events)
        await sandbox.run_command("mkdir -p a/b/c && touch a/b/c/x && sleep 0.2 && touch a/b/c/y")
        await sandbox.run_command(
            "cd $TMPDIR && mkdir t && touch t/z && mv t $OLDPWD; cd $OLDPWD && touch end"
        )
        told = await _until(events, "end", place)
    assert sorted(told) == [
        "created a/", "created a/b/", "created a/b/c/", "created a/b/c/x", "created a/b/c/y",
        "created t/", "created t/z",
    ]  # fmt: skip


async def watch_without_folders_below(client: AsyncSandboxClient) -> None:
    """Not recursive, only the folder's own entries are told; of a file, only its own changes."""
    async with await client.create_sandbox("contract", files={"d/f": "1"}) as sandbox:
        place = await workspace(sandbox)
        events = aiter(sandbox.files.watch(recursive=False))
        of_file = aiter(sandbox.files.watch("d/f"))
        assert (await anext(events)).kind == (await anext(of_file)).kind == "started"
        await sandbox.run_command("touch d/other; echo 2 > d/f; mkdir g; touch g/x end; rm d/f")
        assert await _until(events, "end", place) == ["created g/"]
        assert await _kinds(of_file, 2) == ["modified", "removed"]


async def watch_ends_with_its_folder(client: AsyncSandboxClient) -> None:
    """A watch of what is gone ends; of what was never there, it is refused."""
    async with await client.create_sandbox("contract", files={"d/f": "1"}) as sandbox:
        events = aiter(sandbox.files.watch("d"))
        await anext(events)
        await sandbox.files.remove("d", recursive=True)
        assert [event.kind async for event in events] == ["removed", "removed"]
        try:
            await anext(aiter(sandbox.files.watch("none")))
        except FileError as error:
            assert error.errno == errno.ENOENT, error
        else:
            raise AssertionError("a watch of nothing was not refused")


async def lost_changes_are_told(client: AsyncSandboxClient) -> None:
    """Who does not read is told that changes were lost, and goes on with the tree as it is."""
    script = """
import os
for _ in range(20_000):
    os.close(os.open("f", os.O_CREAT)); os.unlink("f")
os.makedirs("new/sub")
"""
    async with await client.create_sandbox("contract") as sandbox:
        place = await workspace(sandbox)
        events = aiter(sandbox.files.watch())
        await anext(events)
        assert (await sandbox.run_code(script)).ok
        seen = 0
        while (event := await anext(events)).kind != "overflow":
            seen += 1
        assert event.path == place
        await sandbox.run_command("touch new/sub/end")
        async for event in events:
            if event.path == f"{place}/new/sub/end":
                break
        assert seen < 40_000


async def watch_ends_with_its_sandbox(client: AsyncSandboxClient) -> None:
    """The end of the sandbox ends a watch with an error that says so; closing it leaves nothing."""
    async with await client.create_sandbox("contract") as sandbox:
        async for _ in sandbox.files.watch():
            break
        events = aiter(sandbox.files.watch())
        await anext(events)
        await sandbox.cleanup()
        try:
            await anext(events)
        except SandboxEnded:
            pass
        else:
            raise AssertionError("the watch outlived its sandbox")
        await sandbox.setup()


CHECKS = (
    changes_are_told_in_order,
    new_folders_are_watched,
    watch_without_folders_below,
    watch_ends_with_its_folder,
    lost_changes_are_told,
    watch_ends_with_its_sandbox,
)
