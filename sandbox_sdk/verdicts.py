"""How a call ended, from what PID 1 reported and what the kernel counted meanwhile."""

from __future__ import annotations

import errno
import signal
from collections.abc import Mapping
from typing import Any

from sandbox_sdk.backends.base import LimitHits
from sandbox_sdk.values import Ended, EndKind, Resources

_KILLED = 128 + signal.SIGKILL  # how a shell says that its child was killed


def is_success(report: Mapping[str, Any]) -> bool:
    """Return whether a report is of a success, whatever the kernel counted meanwhile."""
    return "refused" not in report and _whole(report, "exit_code") == 0


def decide(
    report: Mapping[str, Any],
    before: LimitHits,
    after: LimitHits,
    *,
    alone: bool,
    resources: Resources,
) -> Ended:
    """Return how a call ended.

    The kernel counts per sandbox and not per call. A call that failed by a kill while memory
    ended is the one; one that failed otherwise is only if no other call ran beside it. So it is
    with a workspace that was full when the call was over, and not before.

    Args:
        report: What PID 1 reported of the call's program.
        before: The counts when the call began.
        after: The counts when it was over.
        alone: Whether no other call of the sandbox ran meanwhile.
        resources: The sandbox's limits.
    """
    if "refused" in report:
        return _refused(report, resources)
    code, number = _whole(report, "exit_code"), _whole(report, "signal")
    if is_success(report):
        return Ended(kind=EndKind.OK, exit_code=0)
    killed = number == signal.SIGKILL or code == _KILLED
    if after.oom_kills > before.oom_kills and (killed or alone):
        return Ended(
            kind=EndKind.OOM,
            exit_code=code,
            signal=number,
            limit="memory",
            limit_value=resources.memory_bytes,
        )
    refused = after.pids_refused > before.pids_refused
    if refused and alone:
        return Ended(
            kind=EndKind.PIDS,
            exit_code=code,
            signal=number,
            limit="pids",
            limit_value=resources.pids,
        )
    if after.used_up and not before.used_up and alone:
        files = after.used_up == "disk_files"
        return Ended(
            kind=EndKind.DISK,
            exit_code=code,
            signal=number,
            limit=after.used_up,
            limit_value=resources.disk_files if files else resources.disk_bytes,
        )
    told = (
        "processes were refused meanwhile, to this call or another" if refused else "",
        "the workspace is full" if after.used_up else "",
    )
    return Ended(
        kind=EndKind.NONZERO if number is None else EndKind.SIGNAL,
        exit_code=code,
        signal=number,
        detail="; ".join(filter(None, told)),
    )


def _refused(report: Mapping[str, Any], resources: Resources) -> Ended:
    """The end of a call for which no process could be started."""
    detail = f"no process could be started: {report.get('message')}"
    if report["refused"] == errno.EACCES:
        return Ended(kind=EndKind.POLICY_DENIED, detail=detail)
    if report["refused"] != errno.EAGAIN:
        return Ended(kind=EndKind.INFRA, safe_to_retry=True, detail=detail)
    return Ended(
        kind=EndKind.PIDS,
        limit="pids",
        limit_value=resources.pids,
        safe_to_retry=True,
        detail=detail,
    )


def _whole(report: Mapping[str, Any], name: str) -> int | None:
    value = report.get(name)
    return value if isinstance(value, int) else None
