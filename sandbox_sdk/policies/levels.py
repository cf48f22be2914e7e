"""The levels ``low``, ``medium`` and ``high``: what each promises, and its rules."""

from __future__ import annotations

import errno

import attrs

from sandbox_sdk.policies.base import Policy, SocketFamily
from sandbox_sdk.policies.calls import ALLOWED, NOT_PERMITTED, OUTSIDERS

_NAMESPACES = 0x7E020000
"""Every namespace flag of ``clone(2)``."""

_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16
_NETLINK_ROUTE = 0

_ANY_UNIX = SocketFamily(number=_AF_UNIX)
_NETWORK = (_ANY_UNIX, SocketFamily(number=_AF_INET), SocketFamily(number=_AF_INET6))
_WITH_ROUTES = (*_NETWORK, SocketFamily(number=_AF_NETLINK, protocol=_NETLINK_ROUTE))

_ONE_KERNEL = "a kernel of its own: a bug in an allowed system call is a way out"
_NO_AGGREGATE = "limits of all processes together where no control group is writable"
_SIDE_CHANNELS = "freedom from side channels of the processor, load and timing included"

MEDIUM = Policy(
    level="medium",
    promises=(
        "no host file but read-only system directories and the interpreter with its packages",
        "no environment variable, descriptor, process, socket or network of the host",
        "own user, mount, pid, net, ipc, uts and cgroup namespaces; no nested user namespaces",
        "no capabilities, no new privileges, never host uid 0",
        "a system call filter: no keyrings, bpf, io_uring, userfaultfd, perf, foreign ABIs",
        "limits on memory, cpu, processes, disk, files, output and time, each held as reported",
    ),
    not_promised=(_ONE_KERNEL, _NO_AGGREGATE, _SIDE_CHANNELS),
    walls=(
        "user_namespace", "mnt_namespace", "pid_namespace", "net_namespace", "ipc_namespace",
        "uts_namespace", "cgroup_namespace", "no_nested_user_namespaces", "capabilities",
        "no_new_privileges", "unprivileged_uid", "seccomp", "socket_families", "read_only_root",
        "sealed_proc", "empty_environment", "no_inherited_descriptors", "untraceable_agent",
    ),
    refused_calls={
        **dict.fromkeys(NOT_PERMITTED, errno.EPERM),
        # Programs fall back to clone, whose flags a filter can see; clone3's lie behind a pointer.
        "clone3": errno.ENOSYS,
    },
    tried_calls=(
        "io_uring_setup", "keyctl", "bpf", "perf_event_open", "userfaultfd", "clone3",
    ),
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
    socket_families=_WITH_ROUTES,
    socket_pairs=_WITH_ROUTES,
)  # fmt: skip
"""The default: model-written code on the user's own machine."""

LOW = attrs.evolve(
    MEDIUM,
    level="low",
    promises=(
        "no content of a host file but, read-only, of system directories and of Python's packages",
        "no environment variable, descriptor, socket or network of the host",
        "no signal to, and no tracing of, a process of the host",
        "no capabilities, no new privileges, never host uid 0, no namespaces",
        "a system call filter: no keyrings, bpf, io_uring, userfaultfd, perf, foreign ABIs",
        "limits on files, output and time, and on the memory of each process",
    ),
    not_promised=(
        "a view of its own: names of host files, processes with arguments, users and host show",
        "an agent that code inside cannot kill, which ends its own sandbox",
        "unchanged modes, times and attributes of files of its own host uid: Landlock leaves them",
        _NO_AGGREGATE,
        _ONE_KERNEL,
        _SIDE_CHANNELS,
    ),
    namespaces=False,
    landlock=True,
    walls=(
        "no_nested_user_namespaces", "capabilities", "no_new_privileges", "unprivileged_uid",
        "seccomp", "landlock", "outside_signals", "socket_families", "sealed_proc",
        "empty_environment", "no_inherited_descriptors", "untraceable_agent",
    ),
    refused_calls={**MEDIUM.refused_calls, **dict.fromkeys(OUTSIDERS, errno.EPERM)},
    tried_calls=(*MEDIUM.tried_calls, "shmget", "mq_open"),
    # As the user's own uid it could change how other programs of the user are scheduled.
    self_only_calls=(
        *MEDIUM.self_only_calls, "sched_setaffinity", "sched_setscheduler", "sched_setparam",
        "sched_setattr",
    ),
    # Without a network view of its own any socket is one of the host's; a pair reaches nobody.
    socket_families=(),
    socket_pairs=(_ANY_UNIX,),
)  # fmt: skip
"""The user's own code and quick tests, also where no namespace can be made."""

HIGH = attrs.evolve(
    MEDIUM,
    level="high",
    promises=(
        "no host file but read-only system directories and the interpreter",
        *MEDIUM.promises[1:4],
        "only the system calls and socket families of a list",
        "Landlock as a second wall around files",
        "a uid or a user namespace that no other sandbox has",
        "memory, cpu and processes held by a control group, disk by the size of a mount",
        "limits on files, output and time, each held as reported",
    ),
    not_promised=(_ONE_KERNEL, _SIDE_CHANNELS),
    landlock=True,
    workspace="tmpfs",
    default_template="python",
    walls=(*MEDIUM.walls, "landlock", "own_uid"),
    required_limits=("memory", "cpu", "pids", "disk"),
    waivable=("landlock", "own_uid", "memory", "cpu", "pids", "disk"),
    allowed_calls=ALLOWED,
    refused_calls={"clone3": MEDIUM.refused_calls["clone3"]},
    tried_calls=(
        *MEDIUM.tried_calls, "shmget", "mq_open", "ptrace", "process_vm_readv", "personality",
    ),
    socket_families=_NETWORK,
    socket_pairs=_NETWORK,
)  # fmt: skip
"""Hostile code, secrets near by, several parties on one machine."""
