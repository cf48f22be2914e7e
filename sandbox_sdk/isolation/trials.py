"""Trials: what a sandbox is made of, done in processes of their own that end at once."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sandbox_sdk
from sandbox_sdk.isolation import remedies
from sandbox_sdk.isolation.runtimes.base import RUN
from sandbox_sdk.values import Wall

_SYSTEM = ("/usr", "/bin", "/lib", "/lib64", "/nix")
_SECONDS = 20.0
_TRIAL = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from sandbox_sdk.isolation.trial import main; main(*sys.argv[2:])"
)


# Any: what the trial said, as JSON.
def kernel(uid: int) -> Mapping[str, Any]:
    """Return what the kernel grants, by the names that ``trial`` gives it."""
    return {"filters": 0, "landlock": 0, **_told(_try("kernel", uid))}


def clone(uid: int) -> Wall:
    """Do what a zygote and its clone do; return how that went."""
    name = "zygote_sandbox"
    told = _told(_try("clone", uid))
    failed = told.get("why") or told["failed"]
    if not failed:
        return Wall(name=name, in_force=True, detail="a cloned process contained itself")
    cause = remedies.explain(failed) or remedies.find_cause()
    return Wall(name=name, in_force=False, detail=f"{failed}; {cause.reason}", fix=cause.fix)


def program(bwrap: Path, uid: int) -> Wall:
    """Let ``bwrap`` make a sandbox around a program that ends at once."""
    options = ["--unshare-all", "--unshare-user", "--disable-userns", "--cap-drop", "ALL"]
    for folder in filter(os.path.exists, _SYSTEM):
        if os.path.islink(folder):
            options += ["--symlink", os.readlink(folder), folder]
        else:
            options += ["--ro-bind", folder, folder]
    options += ["--proc", "/proc", "--dev", "/dev", "/bin/sh", "-c", "exit 0"]
    stage, shown, path = "", "", str(bwrap)
    if uid and not bwrap.is_relative_to("/usr"):
        # As the launcher does: the program, with its libraries, may lie below root's own home.
        packages = next((p for p in bwrap.parents if p.name == "site-packages"), bwrap.parent)
        stage, shown = f"{RUN}/stage", str(packages)
        path = f"{stage}/shown/{bwrap.relative_to(packages)}"
    ended = _try("program", uid, stage, shown, path, *options)
    name = "bubblewrap_sandbox"
    if ended.returncode == 0:
        return Wall(name=name, in_force=True, detail=f"{bwrap} made one")
    said = ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"]
    cause = remedies.explain(ended.stderr)
    command = shlex.join([str(bwrap), *options])
    return Wall(
        name=name,
        in_force=False,
        detail=f"{bwrap} failed: {said[-1]}",
        fix=str(cause or f"see what it says: {command}"),
    )


def _told(ended: subprocess.CompletedProcess[str]) -> Mapping[str, Any]:
    """Return what a trial said of itself; one without a word has failed."""
    try:
        said: Mapping[str, Any] = json.loads(ended.stdout)
    except ValueError:
        reason = ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"]
        return {"failed": "trial", "why": reason[-1]}
    return said


def _try(task: str, uid: int, *rest: str) -> subprocess.CompletedProcess[str]:
    """Run a trial. It can be refused anything, and a hanging one is a refusal too."""
    packages = str(Path(sandbox_sdk.__file__).parent.parent)
    python = getattr(sys, "_base_executable", sys.executable)
    argv = [python, "-I", "-S", "-c", _TRIAL, packages, task, str(uid), *rest]
    try:
        return subprocess.run(
            argv,
            env={},
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        reason = f"hung for {_SECONDS:g} s"
        return subprocess.CompletedProcess(argv, returncode=-1, stdout="", stderr=reason)
