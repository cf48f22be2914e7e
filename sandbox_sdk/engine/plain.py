"""What a sandbox has of this host where nothing can be mounted for it: all at its own path."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import attrs

from sandbox_sdk.engine import reaper
from sandbox_sdk.engine.view import bare_venv
from sandbox_sdk.isolation.runtimes.base import View
from sandbox_sdk.values import Mount

_BESIDES = ("/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/proc")


def at_home(view: View, environments: Path) -> View:
    """Return a template's view with every path as the host has it. Blocks.

    An environment with ``python`` in it, which else is made up inside, is made on disk.

    Args:
        view: What its sandboxes see where it can be mounted.
        environments: The folder for such environments.

    Raises:
        OSError: The folder cannot be written.
    """
    python = _outside(view.python, view)
    packages = tuple(_outside(path, view) for path in view.packages)
    digest = hashlib.sha256("\0".join((python, *packages)).encode()).hexdigest()[:16]
    venv = environments / f"plain-{digest}"
    _make(*bare_venv(str(venv), python, packages))
    sources = [mount.source for mount in view.mounts]
    sources += [path for path in map(Path, (*view.links, *_BESIDES)) if path.exists()]
    shown = dict.fromkeys(path.resolve() for path in (*sources, venv))
    return attrs.evolve(
        view,
        mounts=tuple(Mount(source=path, target=str(path)) for path in shown),
        links={},
        texts={},
        python=python,
        agent=_outside(view.agent, view),
        env={},
        site=packages,
        packages=packages,
        venv=str(venv),
    )


def tmp(workspace: Path) -> Path:
    """Return the folder for temporary files of the sandbox with this workspace."""
    return workspace.parent / "tmp"


def make_tmp(workspace: Path) -> None:
    """Make that folder, empty; its former content, of a sandbox whose owner died, goes.

    Raises:
        OSError: The host refused.
    """
    reaper.remove_tree(tmp(workspace))
    tmp(workspace).mkdir(mode=0o700)


def _outside(path: str, view: View) -> str:
    """Return where the host has what is seen at a path inside."""
    found = max(
        (mount for mount in view.mounts if Path(path).is_relative_to(mount.target)),
        key=lambda mount: len(mount.target),
    )
    return str(found.source / Path(path).relative_to(found.target))


def _make(links: Mapping[str, str], texts: Mapping[str, str]) -> None:
    """Make links and files, each whole at once, for another thread or process may do the same."""
    for path in (*links, *texts):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    for path, says in links.items():
        with suppress(FileExistsError):
            os.symlink(says, path)
    for path, text in texts.items():
        beside = Path(f"{path}.{os.getpid()}-{threading.get_ident()}.part")
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
