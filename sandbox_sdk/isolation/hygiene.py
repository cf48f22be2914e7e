"""What is good to know of a host that runs untrusted code: no level depends on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import attrs

from sandbox_sdk.values import Wall


@attrs.frozen
class _Habit:
    name: str
    path: str
    good: Callable[[str], bool]
    if_good: str
    if_bad: str
    fix: str


_HABITS = (
    _Habit(
        "no_swap",
        "proc/swaps",
        lambda text: len(text.splitlines()) <= 1,
        "memory of sandboxes is never written to disk",
        "memory of sandboxes may be written to disk",
        "sudo swapoff -a, or encrypt the swap",
    ),
    _Habit(
        "no_smt",
        "sys/devices/system/cpu/smt/active",
        lambda text: text == "0",
        "no two programs share a core at one time",
        "two programs may share a core: side channels",
        "echo off | sudo tee /sys/devices/system/cpu/smt/control",
    ),
    _Habit(
        "core_pattern",
        "proc/sys/kernel/core_pattern",
        lambda text: not text.startswith("|"),
        "crashes start no program of the host",
        "a crash inside starts a program on the host, which reads what the crashed one chose",
        "echo kernel.core_pattern=core | sudo tee /etc/sysctl.d/60-core.conf && "
        "sudo sysctl --system",
    ),
    _Habit(
        "ptrace_scope",
        "proc/sys/kernel/yama/ptrace_scope",
        lambda text: text != "0",
        "only parents may trace a process",
        "any process of a user may trace that user's others",
        "sudo sysctl -w kernel.yama.ptrace_scope=1",
    ),
)


def look(root: Path = Path("/")) -> Iterator[Wall]:
    """Yield what this host's settings say; what it has no setting for is left out.

    Args:
        root: Below which ``proc`` and ``sys`` lie.
    """
    for habit in _HABITS:
        try:
            text = (root / habit.path).read_text().strip()
        except OSError:
            continue  # this kernel was built without it
        good = habit.good(text)
        yield Wall(
            name=habit.name,
            in_force=good,
            detail=habit.if_good if good else habit.if_bad,
            fix="" if good else habit.fix,
        )
