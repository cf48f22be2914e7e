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
        ({"refused": errno.EAGAIN}, NONE, True, EndKind.PIDS),
        ({"refused": errno.EMFILE}, NONE, True, EndKind.INFRA),
        ({"exit_code": "0", "signal": None}, NONE, True, EndKind.NONZERO),
    ],
)
def test_the_host_decides(
    report: dict[str, object], after: LimitHits, alone: bool, kind: EndKind
) -> None:
    ended = decide(report, NONE, after, alone=alone, resources=Resources())
    assert ended.kind is kind
    assert ended.safe_to_retry == ("refused" in report)
    assert (ended.limit is None) == (kind not in (EndKind.OOM, EndKind.PIDS))


def test_what_was_counted_before_a_call_is_not_its_doing() -> None:
    """An earlier call's kill does not turn a later failure into ``oom``."""
    assert decide(KILLED, OOM, OOM, alone=True, resources=Resources()).kind is EndKind.SIGNAL


def test_refused_processes_of_parallel_calls_are_told() -> None:
    """Where nobody can say whose fork it was, the result says so."""
    ended = decide({"exit_code": 1}, NONE, PIDS, alone=False, resources=Resources())
    assert "refused meanwhile" in ended.detail
