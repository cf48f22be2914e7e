"""The rows of the table of attacks in the documentation: what is run, and what counts as open."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import attrs
from bait import CANARY, KEY, Bait

Told = dict[str, str]


@attrs.frozen(kw_only=True)
class Attack:
    """One row.

    Attributes:
        case: Its number among the cases of ``tests/attacks``.
        title: What is tried.
        program: Of ``tests/attacks/programs``.
        arguments: Of the program.
        opened: Whether it worked, from what the program told.
        allowed: The levels at which it may work.
        ungrouped: Those at which it may where no control group can be had.
        late: Whether a watchdog may be what ends it.
        fatal: Whether it may end the program, so that it tells nothing.
    """

    case: str
    title: str
    program: str
    arguments: Callable[[Bait], Sequence[object]] = lambda bait: ()
    opened: Callable[[Told], bool] = lambda told: "worked" in told.values()
    allowed: frozenset[str] = frozenset()
    ungrouped: frozenset[str] = frozenset()
    late: bool = False
    fatal: bool = False


def _worked(*names: str) -> Callable[[Told], bool]:
    """Return whether an attempt of one of these names worked."""
    return lambda told: any(told.get(name) == "worked" for name in names)


def _other_environment(told: Told) -> bool:
    return any(how == "found" for name, how in told.items() if name.endswith("/environ"))


MOUNTS = (
    "mount tmpfs", "mount bind", "mount cgroup2", "umount", "uncover /proc", "setns", "chroot",
    "fsopen", "open_tree", "move_mount", "mount_setattr", "pivot_root",
)  # fmt: skip
NETLINK = tuple(
    f"netlink {name}" for name in ("diag", "xfrm", "audit", "netfilter", "uevent", "generic")
)

ATTACKS = (
    Attack(
        case="A01",
        title="read a secret in a home folder",
        program="read_paths",
        arguments=lambda bait: [bait.secret],
        opened=lambda told: CANARY in told.values(),
    ),
    Attack(
        case="A02",
        title="write to a file of the host",
        program="write_paths",
        arguments=lambda bait: [bait.secret, bait.home],
    ),
    Attack(
        case="A03",
        title="find the caller's key in the own environment",
        program="environments",
        arguments=lambda bait: [KEY, "self"],
        opened=lambda told: told.get("self/environ") == "found",
    ),
    Attack(
        case="A04",
        title="find the key in the environment of any process",
        program="environments",
        arguments=lambda bait: [KEY],
        opened=_other_environment,
    ),
    Attack(
        case="A05",
        title="learn the host's name",
        program="names",
        opened=lambda told: os.uname().nodename in told.values(),
        allowed=frozenset({"low"}),
    ),
    Attack(
        case="A06",
        title="use a folder that was left open",
        program="descriptors",
        opened=lambda told: "host-file" in told.values(),
    ),
    Attack(case="A07", title="empty the log behind standard output", program="truncate_output"),
    Attack(
        case="A08",
        title="reach host files by links in `/proc`",
        program="magic_links",
        arguments=lambda bait: [bait.secret],
        opened=lambda told: CANARY in told.values(),
    ),
    Attack(case="A09", title="open the kernel's switches to write", program="settings"),
    Attack(case="A10", title="write to control groups", program="control_groups"),
    Attack(
        case="A11",
        title="crash with a core dump",
        program="crash",
        opened=lambda told: told.get("dumped") == "True",
    ),
    Attack(
        case="A12",
        title="overwrite a program by `/proc/<pid>/exe`",
        program="overwrite_program",
        arguments=lambda bait: [bait.program, 1],
    ),
    Attack(
        case="A13",
        title="gain rights by a setuid program",
        program="privileges",
        arguments=lambda bait: ["/usr/bin/su"],
        opened=lambda told: told.get("gained") == "True",
    ),
    Attack(
        case="A14",
        title="make an own user namespace",
        program="namespaces",
        opened=_worked("clone", "clone3", "unshare"),
    ),
    Attack(
        case="A15",
        title="have rights over an own network",
        program="families",
        opened=_worked(
            *(
                f"{name} of an own network"
                for name in ("netlink netfilter", "netlink xfrm", "packet")
            )
        ),
    ),
    Attack(
        case="A16",
        title="change mounts or the root",
        program="namespaces",
        opened=_worked(*MOUNTS),
    ),
    Attack(
        case="A17",
        title="type into a terminal",
        program="inject_input",
        opened=_worked("TIOCSTI", "TIOCSTI, high bit"),
    ),
    Attack(case="A18", title="make calls of another ABI", program="foreign_calls"),
    Attack(case="A19", title="make calls kernels are attacked by", program="surface"),
    Attack(
        case="A20",
        title="trace or read a program of the same sandbox",
        program="sibling",
        opened=_worked("trace", "read memory"),
        allowed=frozenset({"low", "medium"}),
    ),
    Attack(
        case="A21",
        title="trace, read or signal a process of the host",
        program="host_process",
        arguments=lambda bait: [bait.victim, bait.marker],
    ),
    Attack(case="A22", title="make or open devices", program="devices"),
    Attack(
        case="A23",
        title="open files by handle",
        program="handles",
        arguments=lambda bait: ["/usr/bin/env"],
    ),
    Attack(
        case="A24",
        title="connect to a Unix socket of the host",
        program="host_sockets",
        arguments=lambda bait: bait.offers.words(),
        opened=_worked("abstract socket", "path socket"),
    ),
    Attack(
        case="A24",
        title="attach shared memory of the host",
        program="host_sockets",
        arguments=lambda bait: bait.offers.words(),
        opened=_worked("System V memory", "POSIX memory"),
    ),
    Attack(
        case="A25",
        title="connect to a service on the host's loopback",
        program="host_sockets",
        arguments=lambda bait: bait.offers.words(),
        opened=_worked("loopback"),
    ),
    Attack(
        case="A26",
        title="have a socket of `AF_VSOCK`",
        program="families",
        opened=_worked("vsock"),
    ),
    Attack(
        case="A26",
        title="speak netlink beyond routes",
        program="families",
        opened=_worked(*NETLINK),
    ),
    Attack(
        case="A37",
        title="have 200 processes where 64 are meant",
        program="use_up",
        arguments=lambda bait: ["processes", 200],
        ungrouped=frozenset({"low"}),
        late=True,
        fatal=True,
    ),
    Attack(
        case="A38",
        title="use 512 MiB of memory where 256 are meant",
        program="use_up",
        arguments=lambda bait: ["memory", 512],
        late=True,
        fatal=True,
    ),
    Attack(
        case="A39",
        title="write 64 MiB where 16 are meant",
        program="use_up",
        arguments=lambda bait: ["disk", 64],
        late=True,
        fatal=True,
    ),
    Attack(
        case="A42",
        title="leave a process that outlives the sandbox",
        program="leave",
        arguments=lambda bait: [f"left-{bait.marker}"],
        opened=_worked("still there"),
    ),
)
"""Every row, in the order of the table."""
