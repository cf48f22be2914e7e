"""What all tests share."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def nothing_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep no sandboxes ready, where a test does not ask for it: all that runs is the test's."""
    monkeypatch.setenv("SANDBOX_ORCHESTRATOR_POOL_SIZE", "0")


@pytest.fixture
def anyio_backend() -> str:
    """Run async tests on asyncio, the only loop the SDK runs on."""
    return "asyncio"
