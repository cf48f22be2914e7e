"""Sandboxes that trials had are gone with their run's driver, however it died."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import attrs
import pytest

from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.fresh import FreshSandboxes
from sandbox_sdk.parts import Parts

pytestmark = pytest.mark.anyio


async def recorded(parts: Parts, id: str) -> None:
    """Die before the first start."""


async def ended(parts: Parts, id: str) -> None:
    """Die between the end and the deletion."""
    await parts.backend.start(id)
    await parts.backend.stop(id)


@pytest.mark.parametrize("die", [recorded, ended])
async def test_what_a_dead_driver_left_is_cleared_of_its_run_only(
    die: Callable[[Parts, str], Awaitable[None]], tmp_path: Path
) -> None:
    async with AsyncSandboxClient(state_dir=tmp_path / "state") as client:
        parts = await client._open()
        spec = await FreshSandboxes(parts).prepare({})
        left: list[str] = []
        for run in ("run_dead", "run_other"):
            marked = attrs.evolve(spec, metadata={"sandbox_sdk.run": run})
            left.append((await parts.backend.create(marked)).id)
            await die(parts, left[-1])
        await FreshSandboxes(parts).of_run("run_dead").clear()
        records = await parts.backend.list(include_internal=True)
    assert [record.id for record in records] == left[1:]
