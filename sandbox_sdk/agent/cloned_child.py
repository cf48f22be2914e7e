"""A sandbox that is a clone of this zygote: no program is executed to make it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial
from typing import Any

from sandbox_sdk.agent.containment import FLAGS, Limits, Walls, contain
from sandbox_sdk.agent.sandbox_child import Child, Init, settle
from sandbox_sdk.isolation.walls import capabilities, cgroups, mounts, namespaces

_TRIAL_BYTES = 1024 * 1024


class Born(BaseException):
    """Raised in the cloned child, once it is contained, through all that belongs to the zygote.

    Unwinding lets go of what the zygote held: no other sandbox's name is left for guest code to
    find.

    Attributes:
        descriptors: What is to be settled as 0, 1, 2, ...
    """

    def __init__(self, descriptors: list[int]) -> None:
        super().__init__()
        self.descriptors = descriptors

    def settle(self) -> None:
        """Bring the descriptors to where the agent expects them, and close all others."""
        settle(self.descriptors, inheritable=False)


def clone(
    contain: Callable[[], None], gate: cgroups.Gate, channels: list[int], *, flags: int, uid: int
) -> tuple[int, int, int]:
    """Clone this process, the zygote; in the clone, once contained, ``Born`` is raised.

    Args:
        contain: What the clone does to itself.
        gate: Of its control group, or of none.
        channels: The agent's ends of the sandbox's channels.
        flags: The namespaces that it is cloned into.
        uid: As root, who is to own them; else 0.

    Returns:
        The clone's pid, its pidfd, and where its standard error can be read.

    Raises:
        OSError: The host refused a process or namespace.
    """
    stderr, stderr_end = os.pipe2(os.O_CLOEXEC)
    try:
        if uid:
            _become(uid)
            capabilities.regain()  # to be born in a group takes the right to write its files
        pid, pidfd = namespaces.clone(flags, gate.folder)
    except OSError:
        os.close(stderr)
        os.close(stderr_end)
        _become_root(uid)
        raise
    if pid:
        _become_root(uid)
        os.close(stderr_end)
        return pid, pidfd, stderr
    try:
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        contain()
    except BaseException as error:  # noqa: BLE001 - the zygote reads it, we exit
        os.write(stderr_end, str(error).encode())
        os._exit(126)
    # Of its own, for the zygote's code closes its channels as it is unwound.
    raise Born([null, null, stderr_end, *map(os.dup, channels)])


def try_out(walls: Walls, uid: int) -> None:
    """Make a throw-away clone, to find out whether this host lets it be contained.

    Raises:
        OSError: It does not; the step that failed is named.
    """
    limits = Limits(
        outside_id=uid or os.getuid(),
        gate=cgroups.Gate(),
        workspace=mounts.detached("/tmp", writable=True),  # noqa: S108 - the tree's own, empty
        tmp_bytes=_TRIAL_BYTES,
        affinity=list(os.sched_getaffinity(0)),
        rlimits={},
    )
    try:
        try_clone(partial(contain, walls, limits), flags=FLAGS, uid=uid)
    finally:
        os.close(limits.workspace)


def try_clone(contain: Callable[[], None], *, flags: int, uid: int) -> None:
    """Make a clone that ends as soon as it is contained.

    Raises:
        OSError: It could not be; the step that failed is named.
    """
    try:
        pid, pidfd, stderr = clone(contain, cgroups.Gate(), [], flags=flags, uid=uid)
    except Born:
        os._exit(0)
    signal.pidfd_send_signal(pidfd, 0)  # what could not be ended must not be begun
    os.close(pidfd)
    with os.fdopen(stderr, "rb") as words:
        said = words.read().decode("utf-8", "replace")
    os.waitpid(pid, 0)
    if said:
        raise OSError(said)


def _become(uid: int) -> None:
    """Be who makes the user namespace, owns it then, and may map none but itself.

    Raises:
        OSError: There is no such uid here.
    """
    try:
        os.setresgid(-1, uid, -1)
        os.setresuid(-1, uid, -1)
    except OSError as error:
        said = f"uid {uid} cannot be dropped to: {error.strerror}"
        raise OSError(error.errno, said) from error


def _become_root(uid: int) -> None:
    """Undo what ``clone`` did for a sandbox with a uid of its own."""
    if uid:
        os.setresuid(-1, 0, -1)
        os.setresgid(-1, 0, -1)


class Clone(Child):
    """A clone of the zygote, which gives up its rights by its own hands before it serves."""

    def __init__(self, plan: dict[str, Any]) -> None:
        """Take what the sandbox needs on the host; the zygote sees the host at this moment.

        Raises:
            Refused: It would run as root, or no uid is free.
            OSError: The host refused a folder, mount or group.
        """
        self._gate = cgroups.Gate()
        super().__init__(plan, None)

    def _prepare(self) -> None:
        if self._group is not None:
            self._gate = self._group.gate()

    def take_init(self) -> Init | None:
        """Return the agent, which is the clone itself."""
        self._init = Init(self.pid, os.dup(self.pidfd))
        return self._init

    def give_back(self) -> None:
        """Give back what it holds on the host, as far as nothing of it runs."""
        self._let_go()
        super().give_back()

    def _let_go(self) -> None:
        """Close what only the clone needed."""
        self._gate.close()
        self._gate = cgroups.Gate()


class ClonedChild(Clone):
    """A clone in namespaces of its own."""

    def __init__(self, plan: dict[str, Any], walls: Walls) -> None:
        """Take what the sandbox needs on the host, as for any clone.

        Args:
            plan: The launcher's request.
            walls: Of all clones.

        Raises:
            Refused: It would run as root, or no uid is free.
            OSError: The host refused a folder, mount or group.
        """
        self._walls = walls
        self._mount = -1
        super().__init__(plan)

    def _prepare(self) -> None:
        memory = self._plan["workspace_memory"]
        if memory is None:
            self._mount = mounts.detached(self._plan["workspace"], writable=True)
        else:
            owner = self.uid or os.getuid()
            self._mount = mounts.detached_tmpfs(
                size_bytes=memory["bytes"], files=memory["files"], uid=owner, gid=owner
            )
            self.workspace = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=self._mount)
        super()._prepare()

    def start(self, channels: list[int]) -> None:
        """Clone this process; in the clone ``Born`` is raised.

        Raises:
            OSError: The host refused a process or namespace.
        """
        plan = self._plan
        limits = Limits(
            outside_id=self.uid or os.getuid(),
            gate=self._gate,
            workspace=self._mount,
            tmp_bytes=plan["tmp_bytes"],
            affinity=plan["affinity"],
            rlimits=plan["rlimits"],
        )
        own = partial(contain, self._walls, limits)
        self.pid, self.pidfd, self._stderr = clone(
            own, self._gate, channels, flags=FLAGS, uid=self.uid
        )
        self._let_go()

    def give_back(self) -> None:
        """Give back what it holds on the host, as far as nothing of it runs."""
        if self.workspace >= 0:
            os.close(self.workspace)
            self.workspace = -1
        super().give_back()

    def _let_go(self) -> None:
        if self._mount >= 0:
            os.close(self._mount)
            self._mount = -1
        super()._let_go()
