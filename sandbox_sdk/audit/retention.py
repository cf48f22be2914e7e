"""Removes old segments, whole, and leaves a line in the log that says so."""

from __future__ import annotations

from datetime import datetime

from sandbox_sdk.audit.events import PRUNED, Entry, Line
from sandbox_sdk.audit.merkle import Tree
from sandbox_sdk.audit.segments import Segments

_DAY_SECONDS = 86400.0


def prune(segments: Segments, keep_days: int, now: float) -> int:
    """Remove the segments all of whose lines are older than some days; return how many.

    The line that says so is durable before the first is removed, and a checkpoint should follow.
    The newest segment always stays. What a crash left of an earlier call is removed too.

    Args:
        segments: The log, locked and caught up.
        keep_days: Days to keep.
        now: Seconds since the epoch.

    Raises:
        OSError: Something cannot be removed.
        IntegrityError: A segment does not begin as one.
    """
    paths = segments.paths
    old = 0
    stood = Tree()
    # All lines of a segment are older than the first of the next.
    for following in paths[1:]:
        with following.open("rb") as file:
            first = Line.parse(file.readline())
        if now - datetime.fromisoformat(first.time).timestamp() < keep_days * _DAY_SECONDS:
            break
        old += 1
        stood = Tree(first.sequence - 1, [bytes.fromhex(each) for each in first.data["frontier"]])
    if old:
        data = {"through": stood.size, "root": stood.root.hex(), "segments": old, "days": keep_days}
        segments.append([Entry(type=PRUNED, data=data)])
        for path in paths[:old]:
            path.unlink()
    return old
