"""What a client has on the host at one moment, counted so that two moments can be compared."""

from __future__ import annotations

import asyncio
import os
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import anyio
import attrs
from host import below, command_line, inits, status

from sandbox_sdk.backends.local import group_prefix
from sandbox_sdk.isolation.walls import cgroups

SPARE_NETWORKS = 8
"""Network namespaces that an idle zygote keeps ready."""

_LOOKS, _PATIENCE_SECONDS = 10, 30.0


@attrs.frozen(kw_only=True)
class Standing:
    """What stands; numbers in names are left out, so that equal things are equal.

    Attributes:
        processes: Name of a process below this one, zombies marked -> how many.
        mounts: Mounts that each process of the SDK sees, this one first.
        networks: Network namespaces of the processes below, and those that launchers keep open.
        groups: Control groups of the state folder.
        descriptors: What a process of the SDK has open, locks of user ids among it -> how many.
        folders: Part of the state folder -> how many entries.
        tasks: Tasks of this event loop.
    """

    processes: Mapping[str, int]
    mounts: tuple[int, ...]
    networks: int
    groups: int
    descriptors: Mapping[str, int]
    folders: Mapping[str, int]
    tasks: int


def look(state: Path) -> Standing:
    """Return what stands now of the clients of this process on one state folder."""
    family = below(os.getpid())
    ours = [os.getpid(), *filter(_is_starter, family)]
    return Standing(
        processes=Counter(map(_name, family)),
        mounts=tuple(map(_mounts, ours)),
        networks=_networks(family, ours[1:]),
        groups=len(groups(state)),
        descriptors=Counter(
            f"{'SDK' if pid == ours[0] else 'launcher'} {target}"
            for pid in ours
            for target in _open(pid)
        ),
        folders={
            name: len(os.listdir(state / name)) if (state / name).exists() else 0
            for name in ("owners", "ready", "sandboxes", "runs", "agent")
        },
        tasks=len(asyncio.all_tasks()),
    )


async def settled(state: Path, *, ready: int) -> Standing:
    """Wait until nothing moves any more, and return what stands then.

    Args:
        state: The state folder.
        ready: How many sandboxes are kept ready.
    """
    same, last = 0, look(state)
    with anyio.fail_after(_PATIENCE_SECONDS):
        while same < _LOOKS or not _is_full(ready):
            await anyio.sleep(0.02)
            now = look(state)
            same, last = (same + 1 if now == last else 0), now
    return last


async def comes_back(state: Path, start: Standing) -> Standing:
    """Return what stands, once it is what stood at the start or the time is up."""
    now = look(state)
    with anyio.move_on_after(_PATIENCE_SECONDS):
        while now != start:
            await anyio.sleep(0.02)
            now = look(state)
    return now


def starters() -> list[int]:
    """Return what starts the sandboxes of this process: its launchers and zygotes."""
    return [pid for pid in below(os.getpid()) if _is_starter(pid)]


def groups(state: Path) -> list[str]:
    """Return the control groups of a state folder."""
    hierarchy, _ = cgroups.find()
    ours = f"{group_prefix(state)}-"
    return [] if hierarchy is None else [n for n in hierarchy.leftovers() if n.startswith(ours)]


def anonymous_bytes(pid: int) -> int:
    """Return the memory that a process itself filled, mapped files left out."""
    return int(status(pid)["RssAnon"].split()[0]) * 1024


def _is_full(ready: int) -> bool:
    """Whether all that is kept ready stands: sandboxes, and the networks of the next."""
    zygotes = [pid for pid in starters() if " zygote " in command_line(pid)]
    spare = sum(target.startswith("net:") for pid in zygotes for target in _open(pid))
    # Each has one more open: that where it lives itself.
    return len(inits(os.getpid())) == ready and spare == len(zygotes) * (SPARE_NETWORKS + 1)


def _is_starter(pid: int) -> bool:
    words = command_line(pid)
    # A clone has the words of its zygote, and a process id of its own inside.
    return " launcher " in words or (
        " zygote " in words and len(status(pid).get("NSpid", "").split()) == 1
    )


def _name(pid: int) -> str:
    found = status(pid)
    mark = " (zombie)" if found.get("State", "")[:1] == "Z" else ""
    return f"{found.get('Name', 'gone')}{mark}"


def _mounts(pid: int) -> int:
    try:
        return len(Path(f"/proc/{pid}/mountinfo").read_text().splitlines())
    except OSError:
        return 0  # it has just ended


def _networks(family: list[int], starters: list[int]) -> int:
    found = {target for pid in starters for target in _open(pid, whole=True)}
    for pid in family:
        try:
            found.add(os.readlink(f"/proc/{pid}/ns/net"))
        except OSError:
            continue  # a zombie, or gone
    return sum(target.startswith("net:") for target in found)


def _open(pid: int, *, whole: bool = False) -> list[str]:
    """Return what a process has open, numbers left out unless the whole is wanted."""
    found: list[str] = []
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return []  # it has just ended
    for name in names:
        try:
            target = os.readlink(f"/proc/{pid}/fd/{name}")
        except OSError:
            continue  # the one that listed them
        found.append(target if whole else re.sub(r"\d+", "N", target))
    return found
