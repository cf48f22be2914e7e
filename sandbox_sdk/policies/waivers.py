"""Waivers: the closed set of walls and limits that a caller may go without, by name."""

from __future__ import annotations

from collections.abc import Mapping

WAIVABLE: Mapping[str, str] = {
    "landlock": "a second wall: the mount namespace keeps files apart without it",
    "own_uid": "namespaces keep sandboxes apart without it; what the kernel counts per uid, as "
    "watches, keyrings and pipes, is then shared with other sandboxes",
    "memory": "a watchdog ends what takes too much, but only after it has taken it",
    "cpu": "a mask of cores bounds it, which code inside may widen",
    "pids": "RLIMIT_NPROC bounds processes per user namespace",
    "disk": "a watchdog ends what writes too much, but only after it has written it",
}
"""What may be waived at the levels whose ``waivable`` has it -> why it may, and what is lost.

All else is what a level is made of: without it, ask for a lower level.
"""
