"""One sandbox as the launcher holds it: from the fork to the last trace on the host."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from typing import Any, NamedTuple

from sandbox_sdk.agent import uids
from sandbox_sdk.agent.boot import memory_file
from sandbox_sdk.isolation.walls import cgroups, kernel, mounts, rlimits

_LAST_WORDS = 4096
EMPTY_SECONDS = 5.0
"""Longest wait for the processes of a dead sandbox to be gone."""

_STAGE_BYTES = 1024 * 1024
_HIGH = 16  # above all that is settled
_HIGHEST = (1 << 31) - 1


class Init(NamedTuple):
    """PID 1 of a sandbox, as the host sees it."""

    pid: int
    pidfd: int


class Stage:
    """Folders shown where an unprivileged uid can reach them, in mounts of the launcher's own.

    An interpreter below root's 0700 home cannot be reached after the uid is dropped. Nothing of
    this is visible outside the launcher.
    """

    def __init__(self, folder: str) -> None:
        mounts.enter_private_namespace()
        os.makedirs(folder, mode=0o755, exist_ok=True)
        mounts.tmpfs(folder, size_bytes=_STAGE_BYTES)
        self._shown: set[str] = set()

    def show(self, source: str, target: str, *, read_only: bool) -> None:
        """Show ``source`` at ``target`` below the stage's folder, once."""
        if target not in self._shown:
            mounts.bind(source, target, read_only=read_only)
            self._shown.add(target)

    def hide(self, target: str) -> None:
        """Take ``target`` away again."""
        if target in self._shown:
            mounts.detach(target)
            self._shown.discard(target)


class Child:
    """A child of the launcher that becomes a sandbox, and what it holds on the host.

    Attributes:
        name: The sandbox's id.
        pid: The child; -1 before it was started.
        pidfd: Of the child.
        info: Descriptor on which the child tells the number of PID 1; -1 when that is known.
        uid: The host uid it was dropped to; 0 where none was needed.
        workspace: Of a workspace that only a descriptor leads to; else -1.
        counted: What the kernel counted against its limits, final once it was reaped.
    """

    def __init__(self, plan: dict[str, Any], stage: Stage | None) -> None:
        """Take what the sandbox needs on the host; nothing runs yet.

        Args:
            plan: The launcher's request.
            stage: Where to show folders, as root.

        Raises:
            Refused: It would run as root, or no uid is free.
            OSError: The host refused a folder or group.
        """
        self.name: str = plan["id"]
        self._plan = plan
        self._stage, self._own = stage, plan.get("own_binds", [])
        self._group: cgroups.Group | None = None
        self._uid_lock = -1
        self._init: Init | None = None
        self._gone_at = 0.0
        self._stderr = -1
        self.pid = self.pidfd = self.info = self.workspace = -1
        self.counted = cgroups.Counters()
        self._info_text = b""
        self.uid = 0
        try:
            if plan["uid_range"]:
                # As host uid 0 a sandbox can write the host's /proc/sys whatever else is set.
                former = os.stat(plan["workspace"]).st_uid
                first, count = plan["uid_range"]
                self.uid, self._uid_lock = uids.hold(plan["uid_folder"], first, count, former)
                uids.give_workspace(plan["workspace"], self.uid)
            if stage is not None:
                for source, target, read_only in plan["binds"]:
                    stage.show(source, target, read_only=read_only)
            if plan["hierarchy"]:
                hierarchy = cgroups.Hierarchy(**plan["hierarchy"])
                self._group = hierarchy.create(
                    self.name, cgroups.GroupLimits(**plan["group_limits"])
                )
            self._prepare()
        except BaseException:
            self.give_back()
            raise

    def _prepare(self) -> None:
        """Take what a kind of child needs besides."""

    def start(self, channels: list[int]) -> None:
        """Fork the runtime's program.

        Args:
            channels: The agent's ends of the sandbox's channels.

        Raises:
            OSError: The host refused a process.
        """
        self.info, info_end = os.pipe()
        self._stderr, stderr_end = os.pipe()
        null = os.open("/dev/null", os.O_RDWR)
        blobs = [memory_file(text) for text in self._plan["blobs"]]
        launcher = os.getpid()
        try:
            pid = os.fork()
        except OSError:
            for descriptor in (self.info, info_end, self._stderr, stderr_end, null, *blobs):
                os.close(descriptor)
            raise
        if pid == 0:
            try:
                settle([null, null, stderr_end, channels[0], info_end, *blobs], inheritable=True)
                _drop(self._plan, self.uid, self._group, launcher)
                os.execve(self._plan["argv"][0], self._plan["argv"], {})  # noqa: S606
            except BaseException as error:  # noqa: BLE001 - the parent reads it, we exit
                os.write(2, str(error).encode())
            finally:
                os._exit(126)
        for descriptor in (info_end, stderr_end, null, *blobs):
            os.close(descriptor)
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)

    def take_init(self) -> Init | None:
        """Read which process is PID 1 and take hold of it.

        Returns ``None`` while the runtime has not told all of it; ``info`` is closed and -1 when
        there is no more to come.
        """
        text = os.read(self.info, _LAST_WORDS)
        self._info_text += text
        try:
            pid = json.loads(self._info_text)["child-pid"]
        except ValueError:
            if not text:
                self._close_info()
            return None
        self._close_info()
        try:
            self._init = Init(pid, os.pidfd_open(pid))
        except ProcessLookupError:
            return None  # ended already, as the runtime's program will
        return self._init

    def _close_info(self) -> None:
        if self.info >= 0:
            os.close(self.info)
            self.info = -1

    def kill(self) -> None:
        """Kill PID 1, and with it all that is inside, and the runtime's program."""
        if self._init is not None:
            _kill(self._init.pidfd)
        _kill(self.pidfd)

    def reap(self) -> int:
        """Collect the ended program; return its exit code, or minus the signal."""
        self._gone_at = time.monotonic()
        if self._group is not None:
            self.counted = self._group.counters()
        self._close_info()
        _, status = os.waitpid(self.pid, 0)
        os.close(self.pidfd)
        return os.waitstatus_to_exitcode(status)

    def removed(self) -> bool:
        """Whether the host is clean again: an empty group removed, folders and uid given back."""
        if self._group is not None and not self._group.remove():
            self._group.kill()
            if time.monotonic() - self._gone_at < EMPTY_SECONDS:
                return False
        self._group = None
        self.give_back()
        return True

    def last_words(self) -> str:
        """Return what the runtime wrote to standard error, at most 4 KiB, and forget it."""
        os.set_blocking(self._stderr, False)
        try:
            text = os.read(self._stderr, _LAST_WORDS)
        except BlockingIOError:
            text = b""
        os.close(self._stderr)
        return text.decode("utf-8", "replace").strip()

    def give_back(self) -> None:
        """Give back what it holds on the host, as far as nothing of it runs."""
        if self._group is not None:
            self._group.remove()
            self._group = None
        if self._stage is not None:
            for target in self._own:
                self._stage.hide(target)
        if self._init is not None:
            os.close(self._init.pidfd)
            self._init = None
        if self._uid_lock >= 0:
            os.close(self._uid_lock)
            self._uid_lock = -1


def _drop(plan: dict[str, Any], uid: int, group: cgroups.Group | None, launcher: int) -> None:
    """Give up what the sandbox must not have, in the order that leaves no way back."""
    os.setsid()
    # The launcher ignores these, and what is ignored stays so through every exec.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    if group is not None:
        group.join()
    os.sched_setaffinity(0, plan["affinity"])
    rlimits.apply(plan["rlimits"])
    if uid:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    # After the uid, whose change clears it; then look whether the parent died meanwhile.
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != launcher:
        os._exit(126)


def settle(descriptors: list[int], *, inheritable: bool) -> None:
    """Make the descriptors 0, 1, 2, ... in this order, and close all others."""
    high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, _HIGH) for descriptor in descriptors]
    for target, descriptor in enumerate(high):
        os.dup2(descriptor, target, inheritable)
    kernel.close_range(len(descriptors), _HIGHEST)


def _kill(pidfd: int) -> None:
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        return  # it ended by itself
