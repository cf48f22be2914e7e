"""What a security level is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import attrs

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
        not_promised: What does not, in words.
        namespaces: Whether a sandbox gets namespaces of its own.
        landlock: Whether Landlock holds the files that it may reach.
        workspace: Where its workspace lies while it runs: a host folder, or memory.
        default_template: What a sandbox sees of Python, if nothing is asked for: ``host`` is this
            environment's packages too, ``python`` the interpreter and standard library only.
        walls: The walls that must be proven before any code runs.
        required_limits: The limits that the kernel must hold: a watchdog is not enough.
        waivable: The walls and limits of these that a caller may go without, by name.
        allowed_calls: The only system calls there are: any other of this kernel fails with
            ``EPERM``, and one of a later kernel with ``ENOSYS``, upon which programs use what they
            used before. ``None`` allows all that no other rule refuses.
        refused_calls: System call -> the error number it fails with.
        tried_calls: Refused calls that are tried from inside to prove that the filter stands.
        uncounted_calls: Refused besides where no control group counts memory: they take memory that
            belongs to no process.
        self_only_calls: Calls that may name no process but, by 0, the caller.
        refused_clone_flags: ``clone`` with any of these bits fails.
        refused_ioctls: ``ioctl`` with these numbers fails.
        socket_families: The only families ``socket`` makes.
        socket_pairs: The only families ``socketpair`` makes.
    """

    level: SecurityLevel
    network: Literal["none"] = "none"
    promises: tuple[str, ...]
    not_promised: tuple[str, ...]
    namespaces: bool = True
    landlock: bool = False
    workspace: Literal["folder", "tmpfs"] = "folder"
    default_template: Literal["host", "python"] = "host"
    walls: tuple[str, ...]
    required_limits: tuple[str, ...] = ()
    waivable: tuple[str, ...] = ()
    allowed_calls: tuple[str, ...] | None = None
    refused_calls: Mapping[str, int]
    tried_calls: tuple[str, ...]
    uncounted_calls: Mapping[str, int]
    self_only_calls: tuple[str, ...]
    refused_clone_flags: int
    refused_ioctls: tuple[int, ...]
    socket_families: tuple[SocketFamily, ...]
    socket_pairs: tuple[SocketFamily, ...]
