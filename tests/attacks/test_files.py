"""Attacks on the host's files: reading, writing, and what leads to them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from attacking import PROGRAMS, Inside, Kind, Outside
from host import ROOT, below, command_line, inits, told

from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.errors import FileError
from sandbox_sdk.sandbox import AsyncSandbox

pytestmark = pytest.mark.anyio

CANARY = "canary-5e1f"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a stand-in for somebody's home, open to all: only walls can keep it closed."""
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh" / "id_ed25519").write_text(CANARY)
    for path in (home, home / ".ssh", home / ".ssh" / "id_ed25519"):
        path.chmod(0o777)
    return home


async def test_a01_reading_host_secrets(
    client: AsyncSandboxClient,
    inside: Inside,
    outside: Outside,
    state: Path,
    home: Path,
    kind: Kind,
) -> None:
    """No way of naming a host file reads it: not its path, a link, a magic link or ``..``."""
    neighbour = await client.create_sandbox("neighbour", files={"secret": CANARY})
    await neighbour.setup()
    secrets = [home / ".ssh" / "id_ed25519", *state.glob("sandboxes/*/*/secret")]
    assert len(secrets) == 2
    open_to_all = outside("read_paths", *secrets, home, "/root", "/home", "/etc/shadow")
    read = {name: text for name, text in open_to_all.items() if name.startswith("read ")}
    assert all(CANARY in read[f"read {secret}"] for secret in secrets)

    tried = await inside("read_paths", *secrets, home, "/root", "/home", "/etc/shadow")

    refused = {text for name, text in tried.items() if name.startswith("read ")}
    assert refused <= kind.hidden


async def test_a01_reading_host_secrets_by_file_operations(
    sandbox: AsyncSandbox, home: Path
) -> None:
    """File operations have the guest's authority: a link planted for them leads nowhere."""
    secret = home / ".ssh" / "id_ed25519"
    await sandbox.run_command(["ln", "-s", str(secret), "link"])
    assert secret.read_text() == CANARY
    for path in (str(secret), "link", "../../../../../../" + str(secret)):
        with pytest.raises(FileError):
            await sandbox.files.read(path)


async def test_a02_writing_host_files(
    sandbox: AsyncSandbox, inside: Inside, outside: Outside, home: Path, kind: Kind
) -> None:
    """Nothing that is shown can be written, and what is not shown is not there, or shut."""
    secret, module = str(home / ".ssh" / "id_ed25519"), pytest.__file__
    open_to_us = outside("write_paths", secret, home, module, Path(module).parent)
    assert set(open_to_us.values()) == {"worked"}
    imported = await sandbox.run_code("import pytest; print(pytest.__file__)")
    shown = [imported.stdout.strip(), os.path.dirname(imported.stdout.strip())]
    shown += ["/", "/usr", "/usr/bin", "/usr/bin/env", "/etc", "/etc/passwd", "/opt", "/dev"]
    shown += ["/opt/agent", "/opt/agent/__main__.py", "/opt/venv/bin/python", "/proc", "/proc/sys"]

    tried = await inside("write_paths", *shown)
    hidden = await inside("write_paths", secret, home, Path.cwd())

    assert set(tried.values()) <= {"EROFS", "EACCES", "ENOENT"}
    assert set(hidden.values()) <= kind.hidden
    assert (home / ".ssh" / "id_ed25519").read_text() == CANARY


async def test_a02_modes_and_times_of_host_files(
    inside: Inside, outside: Outside, home: Path, kind: Kind
) -> None:
    """Nor can its length, mode, times, attributes or names be changed."""
    secret = home / ".ssh" / "id_ed25519"
    free = outside("change_paths", secret)
    assert set(free.values()) == {"worked"}

    tried = await inside("change_paths", secret)

    assert tried.keys() == free.keys()
    assert set(tried.values()) <= kind.hidden | {"EPERM", "EXDEV"}
    assert secret.read_text() == CANARY


async def test_a08_magic_links_to_the_host(
    inside: Inside, outside: Outside, agent: int, home: Path
) -> None:
    """No process that code can see has a root or working folder that leads out."""
    secret = home / ".ssh" / "id_ed25519"
    seen_outside = outside("magic_links", secret, str(os.getpid()))
    assert seen_outside[f"{os.getpid()} root"] == CANARY

    tried = await inside("magic_links", secret)

    assert len(tried) >= 6  # the agent, the keeper, and the program itself
    assert set(tried.values()) <= {"EACCES", "ENOENT"}
    assert tried[f"{agent} root"] == tried[f"{agent} cwd"] == "EACCES"


async def test_a12_overwriting_the_runtime(
    inside: Inside, outside: Outside, agent: int, state: Path, tmp_path: Path
) -> None:
    """The way of CVE-2019-5736, ``/proc/<pid>/exe``, writes to no program of the host."""
    ours = tmp_path / "sleep"
    shutil.copy("/usr/bin/sleep", ours)
    assert outside("overwrite_program", ours)[str(ours)] == "worked"
    programs = [Path(sys.executable).resolve(), Path(shutil.which("bwrap") or "/bin/sh")]
    agents = sorted((state / "agent").rglob("*.py"))
    assert agents
    before = _digests([*programs, *agents])

    tried = await inside("overwrite_program", agent)

    assert len(tried) == 4
    assert set(tried.values()) <= {"EROFS", "EACCES", "ETXTBSY"}
    assert tried[f"/proc/{agent}/exe"] == "EACCES"
    assert _digests([*programs, *agents]) == before


OWNER = """
import json, os, sys
import anyio
from host import inits, inner_pid
from sandbox_sdk.client import AsyncSandboxClient

async def main():
    settings, waive, folder, uid = json.loads(sys.argv[1])
    if uid:
        settings["uid_range"] = {"first": uid, "count": 1}
    names = {f"attacks/{name}": open(f"{folder}/{name}").read() for name in os.listdir(folder)
             if name.endswith(".py")}
    async with AsyncSandboxClient(state_dir="state", config=settings) as client:
        sandbox = await client.create_sandbox("owns it", files=names, waive=waive)
        await sandbox.setup()
        (agent,) = map(inner_pid, inits(os.getpid()))
        done = await sandbox.run_command(["python", "attacks/overwrite_program.py", str(agent)])
        print(done.stdout or done.stderr)

anyio.run(main)
"""


def test_a12_overwriting_an_interpreter_of_its_own(kind: Kind, tmp_path: Path) -> None:
    """Not even the owner of the interpreter can overwrite it: to a sandbox it is read-only."""
    subprocess.run(
        [sys.executable, "-m", "venv", "--copies", "--without-pip", tmp_path / "own"], check=True
    )
    python = tmp_path / "own" / "bin" / "python"
    uid = 2_000_123_456 if ROOT else 0
    if ROOT:
        os.chown(python.resolve(), uid, uid)
    tmp_path.chmod(0o755)
    before = _digests([python])
    told_by = json.dumps([kind.settings, kind.waive, str(PROGRAMS), uid])
    done = subprocess.run(
        [python, "-c", OWNER, told_by],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    tried = told(done.stdout)
    assert len(tried) == 4
    assert set(tried.values()) <= {"EROFS", "EACCES", "ETXTBSY"}
    assert _digests([python]) == before


async def test_programs_of_a_sandbox_tell_nothing_of_it(sandbox: AsyncSandbox) -> None:
    """Attack tests look at the right process: one agent below us, started by our launcher."""
    (init,) = inits(os.getpid())
    assert "/agent" in command_line(init)
    assert init in below(os.getpid())


def _digests(paths: list[Path]) -> list[str]:
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
