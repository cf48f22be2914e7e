"""Security levels as data: what each promises, and the rules it is made of."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Literal

import attrs

from sandbox_sdk.errors import IsolationError
from sandbox_sdk.values import SecurityLevel


@attrs.frozen(kw_only=True)
class SocketFamily:
    """A socket family that code inside may use.

    Attributes:
        number: The kernel's number of the family.
        protocol: The only protocol allowed, or ``None`` for all.
    """

    number: int
    protocol: int | None = None


@attrs.frozen(kw_only=True)
class Policy:
    """The rules of one security level.

    Attributes:
        level: Its name.
        network: What the network allows.
        promises: What holds, in words.
        walls: The walls that must be proven before any code runs.
        refused_calls: System call -> the error number it fails with.
        uncounted_calls: Refused besides where no control group counts memory: they take memory that
            belongs to no process.
        self_only_calls: Calls that may name no process but, by 0, the caller.
        refused_clone_flags: ``clone`` with any of these bits fails.
        refused_ioctls: ``ioctl`` with these numbers fails.
        socket_families: The only families ``socket`` makes.
    """

    level: SecurityLevel
    network: Literal["none"]
    promises: tuple[str, ...]
    walls: tuple[str, ...]
    refused_calls: Mapping[str, int]
    uncounted_calls: Mapping[str, int]
    self_only_calls: tuple[str, ...]
    refused_clone_flags: int
    refused_ioctls: tuple[int, ...]
    socket_families: tuple[SocketFamily, ...]


_NAMESPACES = 0x7E020000
"""Every namespace flag of ``clone(2)``."""

_NOT_PERMITTED = (
    # nested namespaces, and mounts within them
    "unshare", "setns", "mount", "umount2", "pivot_root", "chroot", "open_tree",
    "open_tree_attr", "move_mount", "fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr",
    "statmount", "listmount",
    # files by handle, which no mount view contains
    "open_by_handle_at", "name_to_handle_at",
    # the host's keyrings, which no namespace contains
    "keyctl", "add_key", "request_key",
    # large kernel surfaces that sandboxed code has no need of
    "bpf", "userfaultfd", "perf_event_open", "io_uring_setup", "io_uring_enter",
    "io_uring_register", "fanotify_init", "kcmp", "pidfd_getfd", "lookup_dcookie", "vhangup",
    # the machine itself: refused by missing capabilities too
    "kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module", "acct",
    "swapon", "swapoff", "reboot", "settimeofday", "clock_settime", "clock_adjtime", "adjtimex",
    "quotactl", "quotactl_fd", "syslog", "iopl", "ioperm", "lsm_set_self_attr",
    # remains of older kernels
    "nfsservctl", "_sysctl", "uselib", "ustat", "sysfs", "create_module", "get_kernel_syms",
    "query_module",
)  # fmt: skip

_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16
_NETLINK_ROUTE = 0

MEDIUM = Policy(
    level="medium",
    network="none",
    promises=(
        "no host file but read-only system directories and the interpreter with its packages",
        "no environment variable, descriptor, process, socket or network of the host",
        "own user, mount, pid, net, ipc, uts and cgroup namespaces; no nested user namespaces",
        "no capabilities, no new privileges, never host uid 0",
        "a system call filter: no keyrings, bpf, io_uring, userfaultfd, perf, foreign ABIs",
        "limits on memory, cpu, processes, disk, files, output and time, each held as reported",
    ),
    walls=(
        "user_namespace", "mnt_namespace", "pid_namespace", "net_namespace", "ipc_namespace",
        "uts_namespace", "cgroup_namespace", "no_nested_user_namespaces", "capabilities",
        "no_new_privileges", "unprivileged_uid", "seccomp", "socket_families", "read_only_root",
        "sealed_proc", "empty_environment", "no_inherited_descriptors", "untraceable_agent",
    ),
    refused_calls={
        **dict.fromkeys(_NOT_PERMITTED, errno.EPERM),
        # Programs fall back to clone, whose flags a filter can see; clone3's lie behind a pointer.
        "clone3": errno.ENOSYS,
    },
    uncounted_calls={
        # Programs fall back to a file in /tmp or /dev/shm, whose sizes are bounded.
        "memfd_create": errno.ENOSYS,
        "memfd_secret": errno.ENOSYS,
        "shmget": errno.ENOSYS,
    },
    # The kernel lets any process of a uid lower the limits of its others: of the agent too.
    self_only_calls=("prlimit64",),
    refused_clone_flags=_NAMESPACES,
    refused_ioctls=(_TIOCSTI, _TIOCLINUX),
    socket_families=(
        SocketFamily(number=_AF_UNIX),
        SocketFamily(number=_AF_INET),
        SocketFamily(number=_AF_INET6),
        SocketFamily(number=_AF_NETLINK, protocol=_NETLINK_ROUTE),
    ),
)  # fmt: skip
"""The default: model-written code on the user's own machine."""

_NOT_KEPT: Mapping[SecurityLevel, tuple[str, ...]] = {
    "low": ("works where no namespace can be made, as in an unprivileged container (Landlock)",),
    "high": (
        "a system call and socket-family allow-list instead of a deny-list",
        "Landlock as a second wall around files",
        "a disk limit held by the kernel",
        "memory, pids and cpu held by control groups or refused",
    ),
    "maximum": ("a separate kernel between code and host (gVisor)",),
    "unsafe": ("a plain process, by that name only",),
}


def policy(level: SecurityLevel) -> Policy:
    """Return the rules of a security level.

    Raises:
        IsolationError: This version does not keep all promises of the level; the message names
            those that are missing.
    """
    if level == MEDIUM.level:
        return MEDIUM
    missing = "; ".join(_NOT_KEPT[level])
    raise IsolationError(
        f'security level "{level}" is refused: this version does not keep these of its promises '
        f'yet: {missing}. Ask for security_level="medium", which is complete',
        level=level,
    )
