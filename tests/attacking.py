"""What attacks share by name: where they are tried, their programs, and how one is run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import attrs
from host import GROUPS, ROOT

from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.policies import LEVELS
from sandbox_sdk.values import SecurityLevel

PROGRAMS = Path(__file__).parent / "attacks" / "programs"

Inside = Callable[..., Awaitable[dict[str, str]]]
"""Runs an attack program in the sandbox: its name and arguments -> what it told."""

Outside = Callable[..., dict[str, str]]
"""Runs one on the host, where it must work."""

OpenClient = Callable[[], Awaitable[AsyncSandboxClient]]
"""Opens another client, whose launcher starts with what is in force by then."""

LIMITS = ("memory", "cpu", "pids")
"""What a plain user can have bounded only where a control group was delegated to them."""


@attrs.frozen(kw_only=True)
class Kind:
    """A kind of sandbox that is attacked.

    Attributes:
        runtime: What makes it.
        level: Its security level.
        waive: What it may go without where the host or the runtime cannot have it; without
            these names it is refused there (``test_cases.py``). All walls it has stay as they are.
    """

    runtime: str
    level: SecurityLevel
    waive: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.runtime}-{self.level}"

    @property
    def settings(self) -> dict[str, object]:
        """The settings of a client whose sandboxes are of this kind."""
        return {"runtime": self.runtime, "security": {"level": self.level}}

    @property
    def hidden(self) -> frozenset[str]:
        """How the kernel answers for what is not shown; without a view of its own it is shut."""
        shut = frozenset[str]() if LEVELS[self.level].namespaces else frozenset({"EACCES"})
        return frozenset({"ENOENT", "ENOTDIR"}) | shut


KINDS = (
    Kind(runtime="zygote", level="low"),
    Kind(runtime="zygote", level="medium"),
    Kind(runtime="zygote", level="high", waive=LIMITS),
    Kind(runtime="bubblewrap", level="medium"),
    Kind(runtime="bubblewrap", level="high", waive=(*LIMITS, "disk", "landlock")),
)
"""Every kind of sandbox that this version offers."""


@attrs.frozen(kw_only=True)
class Gap:
    """What a level does not promise, or does not offer, and the attacks that show it.

    Each of these tests must fail at the level: a sentence that holds no longer is a fault too.

    Attributes:
        level: The security level.
        says: The words of ``docs/isolation.md``.
        tests: The tests that fail, or some of their parameters: ``NAME[PARAMETERS]``.
        here: Whether it is so for this user.
        tried: Whether the tests are run; not where all of the host would suffer.
    """

    level: SecurityLevel
    says: str
    tests: tuple[str, ...]
    here: bool = True
    tried: bool = True


GAPS = (
    Gap(
        level="low",
        says="a view of its own: names of host files, processes with arguments, users and host",
        tests=(
            "test_a05_paths_and_names_of_the_host", "test_a10_control_groups_are_not_shown",
            "test_a13_setuid_bits", "test_a21_seeing_a_host_process",
            "test_processes_of_a_neighbour_are_not_seen",
            "test_terminals_of_a_neighbour_are_not_seen",
        ),
    ),
    Gap(
        level="low",
        says="an agent that code inside cannot kill, which ends its own sandbox",
        tests=("test_signals_to_the_agent",),
    ),
    Gap(
        level="low",
        says="limits of all processes together where no control group is writable",
        tests=("test_a37_fork_bomb",),
        here=not (ROOT or GROUPS),
        tried=False,
    ),
    Gap(
        level="low",
        says="unchanged modes, times and attributes of files of its own host uid",
        tests=("test_a02_modes_and_times_of_host_files",),
        here=not ROOT,
    ),
    Gap(
        level="low",
        says="`/tmp` and `/dev/shm` are shut",
        tests=("test_a38_files_in_memory",),
    ),
    Gap(
        level="low",
        says="refused besides are sockets of every family, but for pairs of `AF_UNIX`",
        tests=("test_sockets_of_another_sandbox",),
    ),
    Gap(
        level="low",
        says="A plain user has no terminal inside",
        tests=(
            "test_a17_typing_into_a_terminal_of_the_sandbox", "test_a17_keys_of_another_command",
            "test_terminals_of_another_sandbox", "test_a40_flood_through_a_terminal",
            "test_a40_stuck_terminal", "test_a41_what_is_counted_per_uid[terminals]",
        ),
        here=not ROOT,
    ),
)  # fmt: skip
"""Every one that this version has."""
