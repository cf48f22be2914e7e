"""Be on a host that lacks something, and set up one sandbox: tells as JSON how that ended.

Usage: ``python without.py LACKS SPEC``. ``LACKS`` has, as JSON, ``calls``: system call -> error
number that it fails with; and ``false`` for ``cgroups``, ``whole_proc``, ``namespaces`` or
``filters``; and ``true`` for ``container``, what engines of containers leave by default, and for
``python_shown``, where as root any user is to reach the interpreter. ``SPEC`` has a client's
``state`` folder and ``settings``, and its ``sandbox``.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import struct
import sys
from pathlib import Path
from typing import Any

import anyio

from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.errors import SandboxError
from sandbox_sdk.isolation.walls import kernel, mounts, seccomp
from sandbox_sdk.isolation.walls.namespaces import CLONE_NEWNS, CLONE_NEWUSER, map_ids
from sandbox_sdk.isolation.walls.seccomp import ALLOW, Condition, Rule, errno_action
from sandbox_sdk.wire import to_json

_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 22, 38
_NAMESPACES = 0x7E020000
_TMPFS_BYTES = 4096
_PR_CAPBSET_DROP, _CAPABILITIES_3 = 24, 0x20080522
# chown dac_override fowner fsetid kill setgid setuid setpcap net_bind_service net_raw sys_chroot
# mknod audit_write setfcap
_CONTAINERS_RIGHTS = frozenset({0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31})
_SYS_ADMINS = (
    "mount", "umount2", "pivot_root", "setns", "unshare", "open_tree", "move_mount", "fsopen",
    "fsconfig", "fsmount", "fspick", "mount_setattr", "sethostname",
)  # fmt: skip


def lack(what: dict[str, Any]) -> None:
    """Change this process, and all it starts, to find a host without these things."""
    if False in (what.get("cgroups"), what.get("whole_proc")):
        own_mounts()
    if what.get("python_shown"):
        own_mounts()
        show_python()
    if what.get("cgroups") is False:
        mounts.tmpfs("/sys/fs/cgroup", size_bytes=_TMPFS_BYTES)
        mounts.seal_one("/sys/fs/cgroup")
    if what.get("whole_proc") is False:
        mounts.tmpfs("/proc/sys/fs", size_bytes=_TMPFS_BYTES)  # as engines of containers mask it
    rules = [Rule(name, errno_action(number)) for name, number in what.get("calls", {}).items()]
    if what.get("namespaces") is False or what.get("container"):
        for name in ("clone", "unshare"):
            refused = (Condition(0, mask=_NAMESPACES, any_bit=True),)
            rules.append(Rule(name, errno_action(errno.EPERM), refused))
        rules.append(Rule("clone3", errno_action(errno.ENOSYS)))
    if what.get("container"):
        # Without the right that these take, engines refuse them by their filter too.
        rules.extend(Rule(name, errno_action(errno.EPERM)) for name in _SYS_ADMINS)
    if what.get("filters") is False:
        rules.append(Rule("prctl", errno_action(errno.EINVAL), (Condition(0, _PR_SET_SECCOMP),)))
        rules.append(Rule("seccomp", errno_action(errno.ENOSYS)))
    if what.get("container") and os.geteuid() == 0:
        leave_few_rights()
    if rules:
        kernel.prctl(_PR_SET_NO_NEW_PRIVS, 1)
        seccomp.install(seccomp.compile_filter(rules, machine=kernel.MACHINE, default=ALLOW))


def show_python() -> None:
    """See to it that any user can reach this interpreter, as in an image; nobody else sees it."""
    home = next((path for path in Path(sys.base_prefix).parents if not _open(path)), None)
    if home is not None:
        mount = mounts.detached(sys.base_prefix)
        mounts.tmpfs(str(home), size_bytes=_TMPFS_BYTES)
        os.makedirs(sys.base_prefix)
        mounts.attach(mount, sys.base_prefix)


def _open(path: Path) -> bool:
    return bool(path.stat().st_mode & stat.S_IXOTH)


def leave_few_rights() -> None:
    """Keep of root's rights those that a container's has."""
    for number in range(kernel_knows()):
        if number not in _CONTAINERS_RIGHTS:
            kernel.prctl(_PR_CAPBSET_DROP, number)
    mask = sum(1 << number for number in _CONTAINERS_RIGHTS)
    header = struct.pack("=Ii", _CAPABILITIES_3, 0)
    sets = struct.pack("=6I", mask, mask, 0, 0, 0, 0)
    kernel.check(kernel.libc.capset(header, sets), "capset")


def kernel_knows() -> int:
    """Return how many capabilities this kernel has."""
    return int(Path("/proc/sys/kernel/cap_last_cap").read_text()) + 1


def own_mounts() -> None:
    """Get the right to make mounts, which nobody else sees."""
    if os.geteuid() == 0:
        mounts.enter_private_namespace()
        return
    uid, gid = os.geteuid(), os.getegid()
    kernel.unshare(CLONE_NEWUSER | CLONE_NEWNS)
    map_ids(uid, uid, gid)
    mounts.cut_off()


async def try_one(state: str, settings: dict[str, Any], sandbox: dict[str, Any]) -> dict[str, Any]:
    """Set up a sandbox and run something in it; return what it is made of, or the error."""
    async with AsyncSandboxClient(state_dir=state, config=settings) as client:
        try:
            async with await client.create_sandbox("without", **sandbox) as made:
                ran = await made.run_command("echo inside")
                return {
                    "stdout": ran.stdout,
                    "isolation": to_json(made.isolation),
                    "limits": {limit.name: limit.held_by for limit in made.limits},
                }
        except SandboxError as error:
            walls = getattr(error, "walls", ())
            return {
                "error": type(error).__name__,
                "message": str(error),
                "walls": {wall.name: wall.fix for wall in walls},
            }


def main(lacks: str, spec: str) -> None:
    """Do it."""
    lack(json.loads(lacks))
    said = json.loads(spec)
    told = anyio.run(try_one, said["state"], said["settings"], said["sandbox"])
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
