"""Build the environment of a template with uv, outside of every sandbox.

Only wheels are taken: they are unpacked, while a source distribution would have to run its own
code here to become one. What is built runs inside sandboxes only.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module, metadata
from pathlib import Path

import anyio
from anyio.streams.text import TextReceiveStream
from anyio.to_thread import run_sync

from sandbox_sdk.engine import index_settings, view
from sandbox_sdk.errors import TemplateError

INSTALL = 'pip install "sandbox-sdk[packages]", or install uv and have it on PATH'
"""How to get the program that builds templates."""

_TAIL = 4000
_STEPS = ("Resolved", "Downloading", "Prepared", "Installed")
_PASSWORD = re.compile(r"(?<=://)[^/@\s]+(?=@)")

# What uv says, in lower case -> what to do about it; the first that fits is told.
_ADVICE = {
    "no space left": "free space on the disk of the state folder and of uv's cache",
    "hash mismatch": "a file is not the one that was locked: lock the packages again, or ask "
    "where the index has it from",
    "no usable wheels|building from source is disabled|no-build": "a template takes wheels only, "
    "as building a source distribution runs its code outside of every sandbox: take a version "
    "that has wheels, or build one yourself and put it into a find-links folder",
    "failed to fetch|error sending request|network was disabled|dns error|timed out": "the index "
    "did not answer: look at the network, and at the proxy and index that uv or pip are "
    "configured with",
    "unauthorized|forbidden": "give uv the credentials of the index",
    "no solution found|not found in the package registry": "look at the names and versions, and "
    "at the index that uv or pip are configured with",
}


def executable() -> str:
    """Return the interpreter that environments are built for: this one, outside of any venv."""
    return str(getattr(sys, "_base_executable", sys.executable))


def find_uv() -> str | None:
    """Return uv: the one installed in this environment, else the one on ``PATH``."""
    if importlib.util.find_spec("uv") is not None:
        try:
            return str(import_module("uv").find_uv_bin())
        except (FileNotFoundError, AttributeError):
            pass  # the package without its program
    return shutil.which("uv")


async def build(
    folder: Path, packages: Sequence[str], *, keep_open: int, tell: Callable[[str], None]
) -> tuple[str, ...]:
    """Make ``folder/venv``, read-only, as a sandbox sees it at ``/opt/venv``.

    Args:
        folder: An empty folder of ours.
        packages: Requirements, one line each.
        keep_open: A descriptor that every program started holds open: the lock of the folder
            stays while one of them works, even if this process is killed.
        tell: Told of each step.

    Returns:
        What was installed, as ``name==version``, sorted.

    Raises:
        TemplateError: uv is missing, or could not do it.
        OSError: The folder cannot be written.
    """
    uv = await run_sync(find_uv)
    if uv is None:
        raise TemplateError(f"packages need uv to be installed, and it is not there: {INSTALL}")
    requirements = folder / "requirements.txt"
    await run_sync(requirements.write_text, "".join(f"{line}\n" for line in packages))
    venv = folder / "venv"
    environment, flags = await run_sync(index_settings.find)

    async def run(*command: str | Path, failing: bool = True) -> None:
        said = await _run(list(map(str, command)), environment, folder, keep_open, tell)
        if said is not None and failing:
            raise _failed(said)

    tell(f"building a template with {len(packages)} requirements: {_shortened(packages)}")
    make = ("--relocatable", "--no-project", "--no-python-downloads", "--quiet")
    await run(uv, "venv", *make, "--python", executable(), venv)
    install = ("--no-build", "--link-mode", "copy", *flags)
    python = venv / "bin/python"
    await run(uv, "pip", "install", *install, "--python", python, "--requirements", requirements)
    tell("compiling")
    # By another process as it takes long, with the paths that are seen inside. A module that is
    # not valid for this Python is left to fail at its import, as without compiling.
    paths = ("-s", str(venv), "-p", view.VENV)
    compiled = ("--invalidation-mode", "unchecked-hash", *paths, "-j", "0", "-qq")
    await run(executable(), "-I", "-S", "-m", "compileall", *compiled, venv / "lib", failing=False)
    return await run_sync(_finish, venv)


async def _run(
    command: list[str],
    environment: Mapping[str, str],
    folder: Path,
    keep_open: int,
    tell: Callable[[str], None],
) -> str | None:
    """Run a program to its end; return its last words if it failed. Cancelling kills it."""
    said = line = ""
    async with await anyio.open_process(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=folder,
        env=environment,
        start_new_session=True,
        pass_fds=[keep_open],
    ) as process:
        try:
            if process.stderr is not None:
                async for text in TextReceiveStream(process.stderr, errors="replace"):
                    *lines, line = (line + text).split("\n")
                    said = "\n".join([said, *lines])[-_TAIL:]
                    for each in lines:
                        if each.startswith(_STEPS):
                            tell(each)
            code = await process.wait()
        except BaseException:
            # The whole group: compiling has workers of its own.
            with contextlib.suppress(ProcessLookupError):  # it ended by itself
                if process.returncode is None:
                    os.killpg(process.pid, signal.SIGKILL)
            raise
    said = _PASSWORD.sub("***", f"{said}\n{line}").strip()
    return None if code == 0 else said or f"it ended with code {code}"


def _failed(said: str) -> TemplateError:
    lowered = said.lower()
    advice = next((todo for words, todo in _ADVICE.items() if re.search(words, lowered)), "")
    return TemplateError(
        f"the template cannot be built: {advice or 'uv failed'}. uv said:\n{said}", output=said
    )


def _finish(venv: Path) -> tuple[str, ...]:
    """Turn a finished environment into what is seen inside, read-only; return its packages."""
    site = venv / "lib" / view.VERSION / "site-packages"
    inside = view.interpreter()
    programs = venv / "bin"
    for path in programs.iterdir():
        if path.name.startswith(("activate", "deactivate", "pydoc")) and not path.is_symlink():
            path.unlink()
    for name in ("python", "python3", view.VERSION):
        (programs / name).unlink(missing_ok=True)
        (programs / name).symlink_to(inside)
    for name in ("CACHEDIR.TAG", ".gitignore", ".lock"):
        (venv / name).unlink(missing_ok=True)
    (venv / "pyvenv.cfg").write_text(view.pyvenv_cfg(inside))
    versions = {
        f"{found.metadata['Name']}=={found.version}"
        for found in metadata.distributions(path=[str(site)])
    }
    _make_read_only(venv)
    return tuple(sorted(versions, key=str.lower))


def _make_read_only(venv: Path) -> None:
    for parent, folders, files in os.walk(venv):
        for name in (*folders, *files):
            path = os.path.join(parent, name)
            if not os.path.islink(path):
                runs = os.stat(path).st_mode & 0o100  # a folder, or a program
                os.chmod(path, 0o555 if runs else 0o444)
    venv.chmod(0o555)


def _shortened(packages: Iterable[str]) -> str:
    text = ", ".join(line.split(" --hash", 1)[0] for line in packages)
    return text if len(text) <= 100 else f"{text[:90]} ..."
