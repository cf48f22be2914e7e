"""What the kernel really grants, tried in a process of its own that ends with the trial.

``probe`` runs it with ``python -I -S``: the standard library and the walls only. As root the uid
is dropped first, as it is for a sandbox. Says one JSON object on standard output.
"""

from __future__ import annotations

import json
import os
import sys

from sandbox_sdk.isolation.walls import (
    capabilities,
    kernel,
    landlock,
    mounts,
    namespaces,
    seccomp,
)

_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_SMALL_BYTES = 1024 * 1024
_FEW_FILES = 16
_INSIDE = 1000
_BASE = "/tmp"  # noqa: S108 - any folder that every host has; mounted on where nobody else sees it
_FLAGS = (
    namespaces.CLONE_NEWUSER
    | namespaces.CLONE_NEWNS
    | namespaces.CLONE_NEWPID
    | namespaces.CLONE_NEWIPC
    | namespaces.CLONE_NEWUTS
)


def main(task: str, uid: str, *rest: str) -> None:
    """Do one task.

    Args:
        task: ``kernel``, ``clone`` or ``program``.
        uid: The uid to drop to; 0 to stay.
        rest: Of ``program``: a folder to mount on (or nothing), the host folder shown in it, and
            the program with its arguments.
    """
    if task == "kernel":
        json.dump(_kernel(int(uid)), sys.stdout)
    elif task == "clone":
        json.dump(_clone(int(uid)), sys.stdout)
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


def _clone(uid: int) -> dict[str, object]:
    """Do what a zygote does, and then one of its clones, with as good as nothing to see inside."""
    try:
        _enter_tree(uid)
        workspace = mounts.detached_tmpfs(
            size_bytes=_SMALL_BYTES, files=_FEW_FILES, uid=uid, gid=uid
        )
        if uid:
            os.setresgid(-1, uid, -1)
            os.setresuid(-1, uid, -1)
        said, said_end = os.pipe()
        child, _ = namespaces.clone(_FLAGS)
        if child == 0:
            _contain(uid, workspace, said_end)
        os.close(said_end)
        with os.fdopen(said, "rb") as words:
            failed = words.read().decode("utf-8", "replace")
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    except OSError as error:
        return {"failed": str(error)}
    return {"failed": failed or (f"the clone ended with status {status}" if status else "")}


def _enter_tree(uid: int) -> None:
    """Enter a tree of mounts as a zygote's, with a ``/proc`` in which no process is ever seen."""
    if uid:
        mounts.enter_private_namespace()
        os.setgroups([])
    else:
        own_uid, own_gid = os.getuid(), os.getgid()
        kernel.unshare(namespaces.CLONE_NEWUSER | namespaces.CLONE_NEWNS)
        namespaces.map_ids(0, own_uid, own_gid)
        mounts.cut_off()
    system = mounts.detached("/usr")
    mounts.tmpfs(_BASE, size_bytes=_SMALL_BYTES)
    for name in ("proc", "usr", "workspace"):
        os.mkdir(f"{_BASE}/{name}")
    mounts.attach(system, f"{_BASE}/usr")
    child, _ = namespaces.clone(namespaces.CLONE_NEWPID)
    if child == 0:
        try:
            mounts.proc(f"{_BASE}/proc")
        except OSError as error:
            os._exit(error.errno or 1)
        os._exit(0)
    if failed := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        raise OSError(failed, f"mount /proc: {os.strerror(failed)}")
    mounts.pivot(_BASE)


def _contain(uid: int, workspace: int, said: int) -> None:
    """Contain this process, tell what failed, and end."""
    try:
        mounts.proc("/proc")
        kernel.prctl(kernel.PR_SET_DUMPABLE, 1)
        namespaces.map_ids(_INSIDE, uid, uid)
        kernel.unshare(namespaces.CLONE_NEWCGROUP)
        mounts.attach(workspace, "/workspace")
        capabilities.drop_bounding()
        os.setresgid(_INSIDE, _INSIDE, _INSIDE)
        os.setresuid(_INSIDE, _INSIDE, _INSIDE)
        capabilities.clear()
        if version := landlock.abi():
            landlock.restrict(version, readable=("/usr",), writable=("/workspace",))
        seccomp.install(seccomp.compile_filter([], machine=kernel.MACHINE))
    except OSError as error:
        os.write(said, str(error).encode())
    finally:
        os._exit(0)


def _enter_user_namespace() -> None:
    uid, gid = os.getuid(), os.getgid()
    kernel.unshare(namespaces.CLONE_NEWUSER)
    # A changed uid made this process non-dumpable, and its own /proc files root's.
    kernel.prctl(kernel.PR_SET_DUMPABLE, 1)
    namespaces.map_ids(0, uid, gid)


def _show(stage: str, shown: str) -> None:
    """Show a folder below root's home where the dropped uid can reach it."""
    mounts.enter_private_namespace()
    os.makedirs(stage, mode=0o755, exist_ok=True)
    mounts.tmpfs(stage, size_bytes=_SMALL_BYTES)
    mounts.bind(shown, f"{stage}/shown", read_only=True)


def _drop(uid: int) -> None:
    if uid:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
