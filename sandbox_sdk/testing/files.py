"""What file operations promise."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import anyio

from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.errors import FileError
from sandbox_sdk.testing.inside import has
from sandbox_sdk.values import MIB


async def _refused(call: Awaitable[object], number: int) -> None:
    try:
        await call
    except FileError as error:
        assert error.errno == number, error
    else:
        raise AssertionError(f"was not refused with {errno.errorcode[number]}")


async def content_comes_back_as_written(client: AsyncSandboxClient) -> None:
    """Bytes and text come back as written; parents are made; a second write replaces."""
    data = bytes(range(256)) * 5000
    async with await client.create_sandbox("contract") as sandbox:
        await sandbox.files.write("a/b/data", data)
        await sandbox.files.write("/workspace/a/text", "größe")
        assert await sandbox.files.read("/workspace/a/b/data") == data
        assert await sandbox.files.read_text("a/text") == "größe"
        await sandbox.files.write("a/b/data", b"")
        assert await sandbox.files.read("a/b/data") == b""


async def files_are_the_commands_files(client: AsyncSandboxClient) -> None:
    """What is written through files is seen by commands, and the other way round."""
    async with await client.create_sandbox("contract", files={"given/x": "given"}) as sandbox:
        await sandbox.files.write("y", "written")
        done = await sandbox.run_command("cat given/x y; echo made > z")
        assert done.stdout == "givenwritten"
        assert await sandbox.files.read_text("z") == "made\n"


async def large_file_is_streamed(client: AsyncSandboxClient) -> None:
    """A large file goes in and out in pieces, and to and from local files."""
    piece = b"0123456789abcdef" * 65536

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(8):
            yield piece

    async with await client.create_sandbox("contract") as sandbox:
        await sandbox.files.write_stream("large", pieces())
        size = 0
        async for data in sandbox.files.read_stream("large"):
            assert len(data) <= 65536
            size += len(data)
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder, "copy")
            await sandbox.files.download("large", local)
            await sandbox.files.upload(local, "again")
            assert await anyio.Path(local).read_bytes() == piece * 8
        done = await sandbox.run_command("cmp large again && stat -c %s again")
    assert size == len(piece) * 8
    assert done.stdout == f"{size}\n"


async def abandoned_stream_ends(client: AsyncSandboxClient) -> None:
    """A stream that is not read to its end leaves nothing behind."""
    async with await client.create_sandbox("contract") as sandbox:
        await sandbox.files.write("large", bytes(4 * MIB))
        async for _ in sandbox.files.read_stream("large"):
            break
        assert await sandbox.files.read("large", max_bytes=4 * MIB) == bytes(4 * MIB)


async def read_is_bounded(client: AsyncSandboxClient) -> None:
    """A file larger than asked for is refused, not cut."""
    async with await client.create_sandbox("contract") as sandbox:
        await sandbox.files.write("ten", b"0123456789")
        assert await sandbox.files.read("ten", max_bytes=10) == b"0123456789"
        await _refused(sandbox.files.read("ten", max_bytes=9), errno.EFBIG)
        await sandbox.files.write("large", bytes(4 * MIB))
        await _refused(sandbox.files.read("large", max_bytes=MIB), errno.EFBIG)
        await _refused(sandbox.files.read("/dev/zero", max_bytes=9), errno.EINVAL)


async def folders_are_listed_and_described(client: AsyncSandboxClient) -> None:
    """Entries are described, links not followed."""
    async with await client.create_sandbox("contract") as sandbox:
        await sandbox.files.make_dir("d/sub")
        await sandbox.files.write("d/file", b"12345")
        await sandbox.run_command("ln -s /nowhere d/link; mkfifo d/pipe; chmod 640 d/file")
        entries = {Path(info.path).name: info for info in await sandbox.files.list("d")}
        described = await sandbox.files.stat("d/file")
        assert await sandbox.files.exists("d/link")
        assert not await sandbox.files.exists("d/none")
    assert {name: info.kind for name, info in entries.items()} == {
        "file": "file",
        "link": "symlink",
        "pipe": "other",
        "sub": "directory",
    }
    assert entries["link"].target == "/nowhere"
    assert (described.size_bytes, described.mode) == (5, 0o640)
    assert described == entries["file"]


async def removing_and_moving(client: AsyncSandboxClient) -> None:
    """Files move and go; a folder with content goes only when told so."""
    async with await client.create_sandbox("contract") as sandbox:
        files = sandbox.files
        await files.write("d/one", "1")
        await files.move("d/one", "e/two")
        assert await files.read("e/two") == b"1"
        await _refused(files.stat("d/one"), errno.ENOENT)
        await _refused(files.remove("e"), errno.ENOTEMPTY)
        await files.remove("e", recursive=True)
        await _refused(files.remove("e"), errno.ENOENT)


async def failures_carry_the_kernels_word(client: AsyncSandboxClient) -> None:
    """What fails inside raises FileError with its errno, and never waits for ever."""
    async with await client.create_sandbox("contract") as sandbox:
        files = sandbox.files
        await sandbox.run_command("mkfifo pipe; mkdir d")
        await _refused(files.read("none"), errno.ENOENT)
        await _refused(files.read("d"), errno.EISDIR)
        await _refused(files.read("pipe"), errno.EINVAL)
        await _refused(files.write("d", b""), errno.EISDIR)
        sealed = errno.EROFS if has(sandbox, "read_only_root") else errno.EACCES
        await _refused(files.write("/usr/x", b""), sealed)
        await _refused(files.list("none"), errno.ENOENT)
        await _refused(files.read("a\0b"), errno.EINVAL)
        await _refused(files.read("a" * 2_000_000), errno.ENAMETOOLONG)


async def links_lead_nowhere_but_inside(client: AsyncSandboxClient) -> None:
    """A link that code made leads to what that code could read itself, and to no agent."""
    async with await client.create_sandbox("contract") as sandbox:
        await sandbox.run_command("ln -s /proc/self/environ e; ln -s /proc/1/environ a")
        await _refused(sandbox.files.read("a"), errno.EACCES)
        assert b"SANDBOX" not in await sandbox.files.read("e")


async def a_file_past_its_size_limit_is_refused(client: AsyncSandboxClient) -> None:
    """A file larger than the limit is not written, and the old one stays."""
    async with await client.create_sandbox("contract", resources={"file_size": "1MiB"}) as sandbox:
        await sandbox.files.write("f", b"old")
        await _refused(sandbox.files.write("f", bytes(2 * MIB)), errno.EFBIG)
        assert await sandbox.files.read("f") == b"old"


CHECKS = (
    content_comes_back_as_written,
    files_are_the_commands_files,
    large_file_is_streamed,
    abandoned_stream_ends,
    read_is_bounded,
    folders_are_listed_and_described,
    removing_and_moving,
    failures_carry_the_kernels_word,
    links_lead_nowhere_but_inside,
    a_file_past_its_size_limit_is_refused,
)
