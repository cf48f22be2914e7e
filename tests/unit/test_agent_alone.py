"""Agent and walls stand alone: without our package and without site-packages."""

from __future__ import annotations

import ast
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import sandbox_sdk
from sandbox_sdk.engine import payload

PACKAGE = Path(sandbox_sdk.__file__).parent
SOURCES = sorted([*(PACKAGE / "agent").glob("*.py"), *(PACKAGE / "isolation/walls").glob("*.py")])

IMPORT_ALL = """
import importlib, json, pathlib, sys
folder = sys.argv[1]
sys.path.insert(0, folder)
names = [
    ".".join(path.relative_to(folder).with_suffix("").parts)
    for path in pathlib.Path(folder).rglob("*.py") if not path.name.startswith("__")
]
for name in names: importlib.import_module(name)
print(json.dumps({
    "names": names,
    "files": sorted({getattr(module, "__file__", None) or "" for module in sys.modules.values()}),
    "path": sys.path,
}))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder that is shown inside a sandbox."""
    return payload.install(tmp_path / "agent")


def test_every_module_imports_from_the_folder(folder: Path) -> None:
    """With ``-I -S`` each module imports, from the folder and the standard library only."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", IMPORT_ALL, str(folder)],
        capture_output=True, text=True, check=True, env={}, cwd="/",
    )  # fmt: skip
    told = json.loads(done.stdout)
    assert len(told["names"]) == len([path for path in SOURCES if path.name != "__init__.py"])
    assert not [path for path in [*told["path"], *told["files"]] if "site-packages" in path]
    assert not [path for path in told["files"] if path.startswith(str(PACKAGE))]
    assert [path for path in told["files"] if path.startswith(str(folder))]


def test_our_package_itself_is_not_in_the_folder(folder: Path) -> None:
    """``sandbox_sdk/__init__``, which imports the client, cannot run inside."""
    assert not (folder / "sandbox_sdk" / "__init__.py").exists()
    assert not (folder / "sandbox_sdk" / "isolation" / "__init__.py").exists()
    shown = {path.relative_to(folder).parts[:3] for path in folder.rglob("*.py")}
    assert {parts[1] for parts in shown if len(parts) > 1} == {"agent", "isolation"}


def test_folder_cannot_be_written(folder: Path) -> None:
    """Its files are read-only and open to every uid that a sandbox may have."""
    for path in folder.rglob("*"):
        mode = path.stat().st_mode & 0o777
        assert mode == (0o555 if path.is_dir() else 0o444)


def test_folder_is_named_by_its_content(folder: Path) -> None:
    """Installing again gives the same folder, and leaves nothing beside it."""
    assert payload.install(folder.parent) == folder
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_imports_are_the_standard_librarys(path: Path) -> None:
    """No module asks for anything but the standard library, the agent and the walls."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            names = [node.module or ""]
        for name in names:
            ours = name.startswith(("sandbox_sdk.agent", "sandbox_sdk.isolation.walls"))
            assert ours or name.split(".")[0] in sys.stdlib_module_names


def test_agent_without_a_channel_ends(folder: Path) -> None:
    """Started by hand, without a channel, it says why and runs nothing."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(folder), "init"],
        capture_output=True, text=True, check=False, env={}, timeout=10, close_fds=True,
    )  # fmt: skip
    assert done.returncode != 0
    assert "Bad file descriptor" in done.stderr


def test_launcher_ends_with_its_socket(folder: Path) -> None:
    """The launcher runs from the folder, says that it is ready, and ends when nobody listens."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    words = [sys.executable, "-I", "-S", str(folder), "launcher", str(theirs.fileno()), ""]
    with subprocess.Popen(words, pass_fds=[theirs.fileno()], env={}, cwd="/") as launcher:
        theirs.close()
        ready = json.loads(ours.recv(4096))
        assert (ready["say"], ready["pid"]) == ("ready", launcher.pid)
        assert os.getpgid(launcher.pid) == launcher.pid
        ours.close()
        assert launcher.wait(timeout=10) == 0
