"""A call is blamed for what the kernel counted only where it can be the one."""

from __future__ import annotations

import errno
import signal

import pytest

from sandbox_sdk.backends.base import LimitHits
from sandbox_sdk.values import EndKind, Resources
from sandbox_sdk.verdicts import decide

NONE = LimitHits()
OOM = LimitHits(oom_kills=1)
PIDS = LimitHits(pids_refused=3)
FULL = LimitHits(used_up="disk")
KILLED = {"signal": int(signal.SIGKILL)}


@pytest.mark.parametrize(
    ("report", "after", "alone", "kind"),
    [
        ({"exit_code": 0}, OOM, True, EndKind.OK),
        ({"exit_code": 1}, NONE, True, EndKind.NONZERO),
        (KILLED, NONE, True, EndKind.SIGNAL),
        (KILLED, OOM, False, EndKind.OOM),
        ({"exit_code": 137}, OOM, False, EndKind.OOM),
        ({"exit_code": 137}, NONE, True, EndKind.NONZERO),
        ({"exit_code": 1}, OOM, True, EndKind.OOM),
        ({"exit_code": 1}, OOM, False, EndKind.NONZERO),
        ({"exit_code": 1}, PIDS, True, EndKind.PIDS),
        ({"exit_code": 1}, PIDS, False, EndKind.NONZERO),
        ({"exit_code": 0}, FULL, True, EndKind.OK),
        ({"exit_code": 1}, FULL, True, EndKind.DISK),
        ({"exit_code": 1}, LimitHits(used_up="disk_files"), True, EndKind.DISK),
        (KILLED, LimitHits(oom_kills=1, used_up="disk"), True, EndKind.OOM),
        ({"exit_code": 1}, FULL, False, EndKind.NONZERO),
        ({"refused": errno.EAGAIN}, NONE, True, EndKind.PIDS),
        ({"refused": errno.EMFILE}, NONE, True, EndKind.INFRA),
        ({"refused": errno.EACCES}, NONE, True, EndKind.POLICY_DENIED),
        ({"exit_code": "0", "signal": None}, NONE, True, EndKind.NONZERO),
    ],
)
def test_the_host_decides(
    report: dict[str, object], after: LimitHits, alone: bool, kind: EndKind
) -> None:
    ended = decide(report, NONE, after, alone=alone, resources=Resources())
    assert ended.kind is kind
    assert ended.safe_to_retry == (report.get("refused") in (errno.EAGAIN, errno.EMFILE))
    assert (ended.limit is None) == (kind not in (EndKind.OOM, EndKind.PIDS, EndKind.DISK))


def test_what_was_counted_before_a_call_is_not_its_doing() -> None:
    """An earlier call's kill does not turn a later failure into ``oom``."""
    assert decide(KILLED, OOM, OOM, alone=True, resources=Resources()).kind is EndKind.SIGNAL


def test_refused_processes_of_parallel_calls_are_told() -> None:
    """Where nobody can say whose fork it was, the result says so."""
    ended = decide({"exit_code": 1}, NONE, PIDS, alone=False, resources=Resources())
    assert "refused meanwhile" in ended.detail


def test_a_full_workspace_is_told_with_its_limit() -> None:
    """Bytes and files are two limits, each with its value."""
    resources = Resources(disk_bytes=10, disk_files=20)
    for name, value in (("disk", 10), ("disk_files", 20)):
        after = LimitHits(used_up=name)
        ended = decide({"exit_code": 1}, NONE, after, alone=True, resources=resources)
        assert (ended.limit, ended.limit_value) == (name, value)


def test_a_workspace_that_was_full_before_is_only_mentioned() -> None:
    """A call that fails on a full disk may have failed for another reason."""
    ended = decide({"exit_code": 1}, FULL, FULL, alone=True, resources=Resources())
    assert (ended.kind, ended.detail) == (EndKind.NONZERO, "the workspace is full")
