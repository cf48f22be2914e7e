"""What the kernel really grants, tried in a process of its own that ends with the trial.

``probe`` runs it with ``python -I -S``: the standard library and the walls only. As root the uid
is dropped first, as it is for a sandbox. Says one JSON object on standard output.
"""

from __future__ import annotations

import json
import os
import sys

from sandbox_sdk.isolation.walls import kernel, landlock, mounts, namespaces

_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_STAGE_BYTES = 1024 * 1024


def main(task: str, uid: str, *rest: str) -> None:
    """Do one task.

    Args:
        task: ``kernel`` or ``program``.
        uid: The uid to drop to; 0 to stay.
        rest: Of ``program``: a folder to mount on (or nothing), the host folder shown in it, and
            the program with its arguments.
    """
    if task == "kernel":
        json.dump(_kernel(int(uid)), sys.stdout)
    else:
        stage, shown, *argv = rest
        if stage:
            _show(stage, shown)
        _drop(int(uid))
        os.execve(argv[0], argv, {})  # noqa: S606


def _kernel(uid: int) -> dict[str, object]:
    # With a null pointer a kernel that has filters says EFAULT, and nothing is installed.
    try:
        kernel.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER)
        filters = 0
    except OSError as error:
        filters = error.errno or 0
    said: dict[str, object] = {"filters": filters, "landlock": landlock.abi()}
    step = ""
    try:
        if uid:
            step = "mount namespace"
            mounts.enter_private_namespace()
            step = "uid"
            _drop(uid)
        step = "user namespace"
        _enter_user_namespace()
        step = "other namespaces"
        kernel.unshare(namespaces.CLONE_FLAGS & ~namespaces.CLONE_NEWUSER)
    except OSError as error:
        return {**said, "failed": step, "why": error.strerror}
    return said


def _enter_user_namespace() -> None:
    uid, gid = os.getuid(), os.getgid()
    kernel.unshare(namespaces.CLONE_NEWUSER)
    # A changed uid made this process non-dumpable, and its own /proc files root's.
    kernel.prctl(kernel.PR_SET_DUMPABLE, 1)
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"0 {uid} 1"),
        ("gid_map", f"0 {gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def _show(stage: str, shown: str) -> None:
    """Show a folder below root's home where the dropped uid can reach it."""
    mounts.enter_private_namespace()
    os.makedirs(stage, mode=0o755, exist_ok=True)
    mounts.tmpfs(stage, size_bytes=_STAGE_BYTES)
    mounts.bind(shown, f"{stage}/shown", read_only=True)


def _drop(uid: int) -> None:
    if uid:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
