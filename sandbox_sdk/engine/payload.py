"""The agent's program as a folder of its own, named by its digest.

Agent and walls run from there with ``-I -S``: neither ``sandbox_sdk/__init__`` nor site-packages
is ever imported by them, and nothing of the user's installation has to be visible inside.
"""

from __future__ import annotations

import compileall
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from sandbox_sdk.engine import reaper

_PACKAGE = Path(__file__).resolve().parent.parent
_PARTS = ("agent", "isolation/walls")
_UNFINISHED = "unfinished-"

LIBRARY = "sodium.so"
"""The name of libsodium in the agent's folder."""

_MAIN = '''\
"""Entry of the agent's folder: ``python -I -S FOLDER TASK ARGUMENT...``."""

import sys

task, arguments = sys.argv[1], sys.argv[2:]
if task == "init":
    from sandbox_sdk.agent.init import main as task
elif task == "launcher":
    from sandbox_sdk.agent.launcher import main as task
elif task == "template":
    from sandbox_sdk.agent.zygote_build import build as task
elif task == "plain":
    from sandbox_sdk.agent.zygote_plain import serve as task
else:
    from sandbox_sdk.agent.zygote import serve as task
task(*arguments)
'''


def install(folder: Path, library: Path | None = None) -> Path:
    """Return the agent's folder below ``folder``, made if this version's is not there yet.

    Args:
        folder: Where the folders of all versions are.
        library: A file with libsodium, for agents whose channels are sealed.

    Raises:
        OSError: The folder cannot be written, or the library not read.
    """
    sources = _sources()
    if library is not None:
        sources[LIBRARY] = library.read_bytes()
    digest = hashlib.sha256()
    for name, content in sources.items():
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    target = folder / digest.hexdigest()[:32]
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            if not target.exists():  # else another process was first, and its copy is the same
                beside = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=folder))
                try:
                    _fill(beside, sources)
                    beside.rename(target)
                except OSError:
                    reaper.remove_tree(beside)
                    raise
    return target


def sweep(folder: Path) -> None:
    """Remove the half copies of installers that were killed.

    Raises:
        OSError: The host refused.
    """
    if any(folder.glob(f"{_UNFINISHED}*")):
        with _locked(folder):  # whoever is at work finishes first
            for path in folder.glob(f"{_UNFINISHED}*"):
                reaper.remove_tree(path)


@contextmanager
def _locked(folder: Path) -> Generator[None, None, None]:
    """Keep other processes from installing; the kernel unlocks at our death."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _sources() -> dict[str, bytes]:
    found = {"__main__.py": _MAIN.encode()}
    for part in _PARTS:
        for path in sorted((_PACKAGE / part).glob("*.py")):
            found[f"sandbox_sdk/{part}/{path.name}"] = path.read_bytes()
    return found


def _fill(folder: Path, sources: dict[str, bytes]) -> None:
    for name, content in sources.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    compileall.compile_dir(folder, quiet=2)
    for root, folders, files in os.walk(folder):
        for name in files:
            os.chmod(os.path.join(root, name), 0o444)
        for name in folders:
            os.chmod(os.path.join(root, name), 0o555)  # noqa: S103 - no secrets in it
    folder.chmod(0o755)
