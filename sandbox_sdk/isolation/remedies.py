"""Why this host refuses what a sandbox is made of, and each distribution's exact fix."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import attrs

from sandbox_sdk.isolation.runtimes.bubblewrap import INSTALL

_PERSIST = "| sudo tee /etc/sysctl.d/60-sandbox-sdk.conf && sudo sysctl --system"
_MOST_NAMESPACES = 31_000
_CAP_SYS_ADMIN = 21

CONTAINER_FIX = (
    "start the container as a plain user with fewer masks: docker run --user 1000 --security-opt "
    "seccomp=unconfined --security-opt systempaths=unconfined ... (on a host with AppArmor also "
    "--security-opt apparmor=unconfined)"
)
"""What lets sandboxes be made inside a Docker or Podman container."""

LANDLOCK_FIX = "boot Linux 5.13 or newer with landlock in lsm="
"""What lets files be held by Landlock."""

SECCOMP_FIX = (
    "boot a kernel that has CONFIG_SECCOMP_FILTER=y; in a container: docker run --security-opt "
    "seccomp=unconfined ..."
)

_UBUNTU_FIX = (
    "use the distribution's bwrap and load its AppArmor profile: sudo apt install bubblewrap "
    "apparmor-profiles && sudo install -m 0644 "
    "/usr/share/apparmor/extra-profiles/bwrap-userns-restrict /etc/apparmor.d/ && sudo "
    "apparmor_parser -r /etc/apparmor.d/bwrap-userns-restrict (from Ubuntu 25.04 on, sudo apt "
    "install bubblewrap is enough). The profile covers /usr/bin/bwrap, never the one from pip"
)
_PROC_FIX = f"{CONTAINER_FIX}; in LXC or Incus: incus config set NAME security.nesting=true"
_NO_ADMIN_FIX = (
    f"use a plain user, who needs no such right where user namespaces are allowed; {CONTAINER_FIX}"
)


_GROUP_BY_HAND = (
    "let root make a group for you, and start from it: echo '+memory +cpu +pids' | sudo tee "
    "/sys/fs/cgroup/cgroup.subtree_control; sudo mkdir /sys/fs/cgroup/mine; sudo chown $USER "
    "/sys/fs/cgroup/mine{,/cgroup.procs,/cgroup.subtree_control,/cgroup.threads}; echo $$ | sudo "
    "tee /sys/fs/cgroup/mine/cgroup.procs"
)


@attrs.frozen
class Cause:
    """Why something is refused.

    Attributes:
        wall: The wall that cannot be had because of it.
        reason: What refuses it.
        fix: What a person can do about it.
    """

    wall: str
    reason: str
    fix: str

    def __str__(self) -> str:
        return f"{self.reason}. To mend it: {self.fix}"


def find_cause(root: Path = Path("/")) -> Cause:
    """Return what on this host refuses namespaces, or the usual place to look for it.

    Args:
        root: Below which ``proc`` lies.
    """
    reason, fix = _find_cause(root)
    return Cause("user_namespace", reason, f'{fix}; or ask for security_level="low"')


def _find_cause(root: Path) -> tuple[str, str]:
    sysctl = root / "proc/sys"
    if _is_chroot(root):
        return (
            "this process runs in a chroot, where the kernel makes no user namespaces",
            "run it outside the chroot, or enter the tree with systemd-nspawn or bwrap instead",
        )
    if _read(sysctl / "user/max_user_namespaces") == "0":
        return (
            "the setting user.max_user_namespaces is 0",
            f"echo user.max_user_namespaces={_MOST_NAMESPACES} {_PERSIST}",
        )
    if _read(sysctl / "kernel/unprivileged_userns_clone") == "0":
        return (
            "the setting kernel.unprivileged_userns_clone is 0 (Debian's kernels have it)",
            f"echo kernel.unprivileged_userns_clone=1 {_PERSIST}",
        )
    status = _read(root / "proc/self/status")
    filtered = "Seccomp:\t2" in status
    if filtered and _is_container(root):
        return "the system call filter of this container refuses them", CONTAINER_FIX
    if _is_weak_root(status):
        return "this root lacks CAP_SYS_ADMIN", _NO_ADMIN_FIX
    if _read(sysctl / "kernel/apparmor_restrict_unprivileged_userns") == "1":
        return (
            "AppArmor restricts user namespaces to programs with a profile (Ubuntu since 23.10)",
            _UBUNTU_FIX,
        )
    if filtered:
        return (
            "a system call filter that this process inherited refuses them",
            "if systemd started it, remove RestrictNamespaces= and SystemCallFilter= from its unit",
        )
    if not (sysctl / "user/max_user_namespaces").exists():
        return "this kernel has no user namespaces", "boot a kernel that has CONFIG_USER_NS=y"
    return (
        "the kernel refuses them, and no setting known here says why",
        (
            "look for a denial by AppArmor or SELinux: sudo dmesg | grep -i denied; in a "
            f"container, {CONTAINER_FIX}; a chroot has none"
        ),
    )


def group_fix(root: Path = Path("/")) -> str:
    """Return how this process can be given a control group that it may write.

    Args:
        root: Below which ``run`` and ``sys`` lie.
    """
    uid = os.geteuid()
    if uid == 0:
        return (
            "make /sys/fs/cgroup writable: in Docker with --cgroupns=private --privileged, or set "
            "limits on the container itself"
        )
    scope = "run it with a group of its own: systemd-run --user --scope -p Delegate=yes -- COMMAND"
    if not (root / "sys/fs/cgroup/cgroup.controllers").exists():
        return f"boot with cgroup v2 (systemd.unified_cgroup_hierarchy=1); then {scope}"
    return scope if (root / f"run/user/{uid}/systemd").exists() else _GROUP_BY_HAND


def explain(said: str, root: Path = Path("/")) -> Cause | None:
    """Return why a sandbox could not be made and the fix, or ``None`` if the words are unknown.

    Args:
        said: What ``bwrap``, the launcher or the zygote said.
        root: Below which ``proc`` lies.
    """
    for words, cause in _KNOWN:
        if re.search(words, said):
            return cause(said, root) if callable(cause) else cause
    return None


def _namespaces(said: str, root: Path) -> Cause:
    exhausted = "ENOSPC" in said or "No space left" in said
    if exhausted and _read(root / "proc/sys/user/max_user_namespaces") != "0":
        return Cause(
            "user_namespace",
            "as many namespaces exist as are allowed, or they are nested too deep",
            f"echo user.max_user_namespaces={_MOST_NAMESPACES} {_PERSIST}",
        )
    return find_cause(root)


# bwrap's words, and those of our own system calls.
_NAMESPACE_WORDS = (
    "No permissions to creat|Creating new namespace failed|setting up [ug]id map"
    "|loopback: Failed|Failed to make / slave|max_user_namespaces|pivot_root"
    r"|clone3\(|unshare\(|(open_tree|mount_setattr|move_mount)\b.*not permitted"
)
_MOUNT_WORDS = (
    r"(mount_setattr|open_tree|move_mount|fsopen|fsconfig|fsmount|mount tmpfs)\b.*not implemented"
)
_UID_WORDS = (
    "uids from .* are in use|uid .* is not mapped here|uid .* cannot be dropped to"
    "|its uid range begins at 0"
)
_WAY_FIX = (
    "let Python, its packages and the state folder lie where all users may go (in a container: an "
    "interpreter below /usr or /opt, SANDBOX_STATE_DIR=/var/lib/sandbox-sdk), or use a plain user"
)
_KNOWN: tuple[tuple[str, Cause | Callable[[str, Path], Cause]], ...] = (
    (
        "setuid mode|setuid user",
        Cause("bubblewrap", "bwrap is installed setuid root", 'sudo chmod u-s "$(which bwrap)"'),
    ),
    ("Unknown option", Cause("bubblewrap", "bwrap is older than 0.8.0", INSTALL)),
    (
        "seccomp filter|system call filtering",
        Cause("seccomp", "no system call filter can be installed here", SECCOMP_FIX),
    ),
    (
        "landlock_create_ruleset",
        Cause("landlock", "there is no Landlock here, or it is filtered", LANDLOCK_FIX),
    ),
    (
        "may not enter a folder on the way",
        Cause("unprivileged_uid", "the uid to drop to would not reach it", _WAY_FIX),
    ),
    (
        "Can't mount proc|mount /proc|mount proc on",
        Cause(
            "pid_namespace",
            "parts of /proc are masked, so no new one may be mounted",
            _PROC_FIX,
        ),
    ),
    (
        _MOUNT_WORDS,
        Cause(
            "mnt_namespace",
            "the calls that make mounts of descriptors are absent or filtered",
            f"boot Linux 5.12 or newer, or let bubblewrap do it: {INSTALL}",
        ),
    ),
    (
        _UID_WORDS,
        Cause(
            "own_uid",
            "root has no uid to drop to for this sandbox",
            "set uid_range in config.yaml to more ids, of those that /proc/self/uid_map has; or "
            "use a plain user",
        ),
    ),
    (_NAMESPACE_WORDS, _namespaces),
)


def _is_chroot(root: Path) -> bool:
    """Whether no mount stands at ``/``: those above a chroot's root are not listed."""
    lines = _read(root / "proc/self/mountinfo").splitlines()
    return bool(lines) and not any(line.split()[4] == "/" for line in lines)


def _is_container(root: Path) -> bool:
    return (root / ".dockerenv").exists() or (root / "run/.containerenv").exists()


def _is_weak_root(status: str) -> bool:
    """Whether this is root, but without the right to make namespaces by itself."""
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    if fields.get("Uid", "").split("\t")[1:2] != ["0"]:
        return False
    return not int(fields.get("CapEff", "0"), 16) >> _CAP_SYS_ADMIN & 1


def _read(path: Path) -> str:
    """A kernel's file as text; empty where this kernel or its masks do not show it."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
