"""The step from the agent's trust to the guest's: what a forked child does before guest code."""

from __future__ import annotations

import json
import os
import signal
from contextlib import suppress
from typing import NamedTuple

from sandbox_sdk.agent import randomness
from sandbox_sdk.isolation.walls import kernel, rlimits

_HIGHEST = 1 << 20
_WORKSPACE = "/workspace"


class Settings(NamedTuple):
    """What the host said in ``GO``.

    Attributes:
        rlimits: Limits of every guest process, by the kernel's word.
        env: Environment of every guest process.
        workspace: Where guests begin, and what relative paths mean.
        site: Folders with packages for Python contexts.
        seed: Of the random sources of Python contexts; ``None`` is fresh randomness.
    """

    rlimits: dict[str, int]
    env: dict[str, str]
    workspace: str
    site: list[str]
    seed: int | None = None

    @classmethod
    def parse(cls, text: bytes) -> Settings:
        """Return the settings that the host wrote as JSON."""
        return cls(**json.loads(text))

    def locate(self, path: str) -> str:
        """Return where a path lies that begins with ``/workspace``, wherever that is mounted."""
        if path == _WORKSPACE or path.startswith(f"{_WORKSPACE}/"):
            return self.workspace + path[len(_WORKSPACE) :]
        return path


def close_all_but(keep: list[int]) -> None:
    """Close every descriptor but 0, 1, 2 and those to keep."""
    low = 3
    for descriptor in [*sorted(d for d in keep if d > 2), _HIGHEST]:
        kernel.close_range(low, descriptor - 1)
        low = descriptor + 1


def become(settings: Settings, keep: list[int]) -> None:
    """Turn this forked child of the agent into a process with the guest's authority only.

    The order matters. Descriptors go first: once the process can be traced by other guests, any
    that is still open is theirs. Only then it is made dumpable, without which its own ``/proc``
    files would belong to root.
    """
    leave_agent(keep)
    rlimits.apply(settings.rlimits)


def leave_agent(keep: list[int]) -> None:
    """Do the part of ``become`` that needs no settings."""
    close_all_but(keep)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 1)
    with suppress(PermissionError):  # Landlock may shut /proc; all of the sandbox has it then
        descriptor = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        os.write(descriptor, b"1000")  # when memory ends, guests die before the agent
        os.close(descriptor)
    signal.set_wakeup_fd(-1)  # the agent's, closed above
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)


def take_settings(settings: Settings) -> None:
    """Make this process of a Python context as the host wants it."""
    rlimits.apply(settings.rlimits)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(settings.workspace)
    os.environ.clear()
    os.environ.update(settings.env)
    randomness.reseed(settings.seed)
