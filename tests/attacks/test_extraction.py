"""Attacks on the way out: a workspace that changes while the host reads it, hostile archives."""

from __future__ import annotations

import ast
import io
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from host import ROOT, workspace_with

import sandbox_sdk
from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.engine.extract import collect
from sandbox_sdk.errors import SandboxError
from sandbox_sdk.sandbox import AsyncSandbox

pytestmark = pytest.mark.anyio

CANARY = "canary of the host 91d2"
SECONDS, PATIENCE, ENOUGH = 2.0, 30.0, 120
FLIP = """
import os
folder, name = os.path.split(HOST)
os.makedirs("out/inner")
with open("own", "w") as file: file.write("the guest's own")
os.link("own", "out/inner/" + name)
print("flipping", flush=True)
while True:
    # A file becomes a link to the host's, and a file again; so does a folder on the way.
    os.symlink(HOST, "next"); os.rename("next", "out/flips")
    os.link("own", "next"); os.rename("next", "out/flips")
    os.rename("out/inner", "away"); os.symlink(folder, "out/inner")
    os.unlink("out/inner"); os.rename("away", "out/inner")
"""


@pytest.fixture
def host_file(tmp_path: Path) -> Path:
    path = tmp_path / "beside" / "file"
    path.parent.mkdir()
    path.write_text(CANARY)
    return path


@pytest.mark.slow
async def test_a30_links_that_flip_while_the_host_collects(
    sandbox: AsyncSandbox, state: Path, host_file: Path, tmp_path: Path
) -> None:
    """However fast a file turns into a link to a host file and back, the host's never leaves.

    A reader that checks the path and then opens it does leak, sooner or later.
    """
    flip = f"HOST = {str(host_file)!r}\n{FLIP}"
    await sandbox.files.write("flips-here", "")
    workspace = workspace_with("flips-here", state)
    kept = tmp_path / "kept"
    async with sandbox.start_command(["python", "-u", "-c", flip]) as process:
        assert b"flipping" in await anext(process.stdout)
        naive = _until(PATIENCE, lambda: _check_then_open(workspace / "out" / "flips"))
        tries = copied = 0
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline or copied < ENOUGH:
            copied += len(collect(workspace, ["out/flips", "out/inner/*"], kept).artifacts)
            tries += 1
        await process.kill()
    leaked = [path for path in kept.rglob("*") if path.is_file() and CANARY in path.read_text()]
    assert CANARY in naive, "the attack itself did not work here"
    assert tries > copied / 2
    assert leaked == []


def _until(seconds: float, read: Callable[[], str]) -> set[str]:
    """Read until the attack worked or the time is over; return all that was read."""
    found: set[str] = set()
    deadline = time.monotonic() + seconds
    while CANARY not in found and time.monotonic() < deadline:
        found.add(read())
    return found


def _check_then_open(path: Path) -> str:
    """Read a file as careless hosts do: look whether it is a link, then open it."""
    try:
        return "refused" if path.is_symlink() else path.read_text()
    except OSError:
        return "gone"


async def test_a31_odd_files(
    client: AsyncSandboxClient, programs: dict[str, str], tmp_path: Path
) -> None:
    """What is no file stays behind and is told; files of any name come out as files, in time."""
    async with await client.create_sandbox("odd", files=programs) as sandbox:
        made = await sandbox.run_command(["python", "attacks/odd_files.py"])
        assert made.ok, made.stderr
        began = time.monotonic()
        collected = await sandbox.collect(["odd/**"], tmp_path / "kept")
        assert time.monotonic() - began < 5
    names = {artifact.path for artifact in collected.artifacts}
    assert {"odd/plain", "odd/linked", "odd/-rf", f"odd/{'a' * 255}", "odd/sparse"} <= names
    assert not names & {"odd/pipe", "odd/socket", "odd/to a host file", "odd/loop"}
    told = " ".join(collected.skipped)
    assert "odd/pipe" in told
    assert "odd/socket" in told
    for path in (tmp_path / "kept").rglob("*"):
        assert path.is_dir() or (path.is_file() and not path.is_symlink())
        assert path.name.isprintable()


async def test_a33_workspace_replaced_by_a_link(
    client: AsyncSandboxClient, state: Path, host_file: Path
) -> None:
    """No code can replace what is mounted; where the host's folder was, its link is not followed.

    A careless bind would show what the link leads to.
    """
    sandbox = await client.create_sandbox("replaced")
    code = (
        "import os, tempfile\n"
        "here, tmp = os.getcwd(), tempfile.gettempdir()\n"
        "def tries():\n"
        "    yield lambda: os.rename(here, tmp + '/moved')\n"
        "    yield lambda: os.rename(here, here + '2')\n"
        "    yield lambda: os.rmdir(here)\n"
        "    yield lambda: os.rename(tmp, here + '/tmp')\n"
        "    yield lambda: os.symlink('/', here + '2')\n"
        "worked = 0\n"
        "for act in tries():\n"
        "    try: act()\n"
        "    except OSError: continue\n"
        "    worked += 1\n"
        "worked"
    )
    assert (await sandbox.run_code(code)).text == "0"
    await sandbox.cleanup()
    (workspace,) = state.glob(f"sandboxes/{sandbox.id}/workspace")
    workspace.rename(workspace.with_name("away"))
    workspace.symlink_to(host_file.parent)
    assert (workspace / host_file.name).read_text() == CANARY
    try:
        shown = (await sandbox.run_command(["cat", host_file.name])).stdout
    except SandboxError:
        shown = ""
    finally:
        await sandbox.cleanup()
        workspace.unlink()
        workspace.with_name("away").rename(workspace)
    assert CANARY not in shown


async def test_shut_workspace(client: AsyncSandboxClient, tmp_path: Path) -> None:
    """Code that shuts its own workspace is not taken for a fault of the host, nor for ever."""
    sandbox = await client.create_sandbox("shut")
    shut = "import os; open('a', 'w').close(); os.chmod(os.getcwd(), 0); os.access('.', os.X_OK)"
    assert (await sandbox.run_code(shut)).text == "False"
    collected = await sandbox.collect(["*"], tmp_path / "kept")
    if ROOT:  # whom no mode stops
        assert [artifact.path for artifact in collected.artifacts] == ["a"]
    else:
        assert collected.skipped == {"./": "cannot be opened: Permission denied"}
    await sandbox.cleanup()
    await sandbox.setup()
    assert await sandbox.files.exists("a")
    await client.delete_sandbox(sandbox.id)


def _hostile_tar() -> bytes:
    """Return an archive of every member that writes outside or makes what must not be."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in ("../escaped", "/tmp/escaped", "link/escaped", "a/../../escaped"):
            member = tarfile.TarInfo(name)
            member.size = 3
            archive.addfile(member, io.BytesIO(b"bad"))
        for name, kind, target in (
            ("link", tarfile.SYMTYPE, "/tmp"),
            ("hard", tarfile.LNKTYPE, "../escaped"),
            ("device", tarfile.BLKTYPE, ""),
            ("pipe", tarfile.FIFOTYPE, ""),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.mode = kind, target, 0o4755
            archive.addfile(member)
    return stream.getvalue()


def _hostile_zip() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../escaped", "bad")
        archive.writestr("bomb", bytes(20_000_000))
    return stream.getvalue()


async def test_a32_hostile_archives_stay_files(sandbox: AsyncSandbox, tmp_path: Path) -> None:
    """An archive that comes out is one file of the same bytes, and nothing else appears."""
    archives = {"hostile.tar": _hostile_tar(), "hostile.zip": _hostile_zip()}
    naive = tmp_path / "naive" / "inner"
    naive.mkdir(parents=True)
    with tarfile.open(fileobj=io.BytesIO(archives["hostile.tar"])) as archive:
        # Python before 3.11.4 has no filters, and trusts every archive.
        archive.extraction_filter = getattr(tarfile, "fully_trusted_filter", None)
        archive.extract("../escaped", naive)
    assert (naive.parent / "escaped").read_text() == "bad"
    before = set(tmp_path.rglob("escaped*"))
    for name, content in archives.items():
        await sandbox.files.write(name, content)

    collected = await sandbox.collect(["*.tar", "*.zip"], tmp_path / "kept")

    kept = [path for path in (tmp_path / "kept").rglob("*") if path.is_file()]
    assert {artifact.path for artifact in collected.artifacts} == archives.keys()
    assert sorted(path.read_bytes() for path in kept) == sorted(archives.values())
    assert all(path.stat().st_mode & 0o7111 == 0 for path in kept)
    assert set(tmp_path.rglob("escaped*")) == before


def test_a32_nothing_unpacks_archives() -> None:
    """No module of ours can unpack an archive or a pickle that came out of a sandbox."""
    forbidden = {"tarfile", "zipfile", "pickle", "marshal", "shelve", "dill", "cloudpickle", "yaml"}
    package = Path(sandbox_sdk.__file__).parent
    modules = sorted(package.rglob("*.py"))
    assert len(modules) > 50
    assert set(_imports(ast.parse("import tarfile\nfrom pickle import loads"))) & forbidden
    found = {
        str(module.relative_to(package)): names
        for module in modules
        if (names := set(_imports(ast.parse(module.read_text()))) & forbidden)
    }
    # A wheel from the package index, checked by its digest before: no guest made it.
    found.pop("experiments/models/install.py", None)
    assert found == {}


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name.split(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0]
        elif isinstance(node, ast.Attribute) and node.attr == "unpack_archive":
            yield "tarfile"
