"""A signal reaches the program, and never the keeper that stands before it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from sandbox_sdk.agent import frames, starting
from sandbox_sdk.agent.exchange import Exchange
from sandbox_sdk.agent.guest import Settings

SETTINGS = Settings(rlimits={}, env={}, workspace="/", site=[])


@pytest.fixture
def sleepers() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Give two processes: one in the keeper's place, and one in the program's."""
    started = [subprocess.Popen(["sleep", "60"]) for _ in range(2)]
    yield started
    for process in started:
        process.kill()
        process.wait()


def opened(monkeypatch: pytest.MonkeyPatch, child: int) -> tuple[Exchange, int]:
    """Return an exchange with this direct child, and where its keeper would report."""
    report, report_end = os.pipe()
    os.set_blocking(report, False)
    outputs = dict.fromkeys((frames.STDOUT, frames.STDERR, frames.RESULT), -1)
    started = starting.Started(child, report, -1, outputs)
    monkeypatch.setattr(starting, "start", lambda request, settings: started)
    return Exchange(1, {"kind": "command"}, SETTINGS, lambda descriptor: None), report_end


def test_a_signal_before_the_keeper_told_waits_for_the_program(
    monkeypatch: pytest.MonkeyPatch, sleepers: list[subprocess.Popen[bytes]]
) -> None:
    keeper, program = sleepers
    exchange, report = opened(monkeypatch, keeper.pid)
    exchange.signal(signal.SIGUSR1)
    exchange.read_report()
    os.write(report, json.dumps({"pid": program.pid}).encode() + b"\n")
    exchange.read_report()
    assert program.wait(10) == -signal.SIGUSR1
    assert keeper.poll() is None
    os.close(report)
    exchange.close()


def test_a_signal_goes_to_a_program_without_a_keeper(
    monkeypatch: pytest.MonkeyPatch, sleepers: list[subprocess.Popen[bytes]]
) -> None:
    """Where no process was left for one."""
    program = sleepers[0]
    exchange, report = opened(monkeypatch, program.pid)
    exchange.signal(signal.SIGUSR1)
    os.close(report)
    exchange.read_report()
    assert program.wait(10) == -signal.SIGUSR1
    exchange.close()
