"""The contract over every face of the SDK that this machine can run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.testing import CHECKS

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

Check = Callable[[AsyncSandboxClient], Awaitable[None]]


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[AsyncSandboxClient]:
    async with AsyncSandboxClient(state_dir=tmp_path / "state") as client:
        yield client


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_contract(check: Check, client: AsyncSandboxClient) -> None:
    await check(client)
