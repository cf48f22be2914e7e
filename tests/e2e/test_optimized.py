"""Proposals are applied to new sandboxes only, outlive the client, and can be taken back."""

from __future__ import annotations

from pathlib import Path

import pytest
from host import GROUPS
from prometheus_client.parser import text_string_to_metric_families

from sandbox_sdk import AsyncSandboxClient, ConfigError, PolicyDenied
from sandbox_sdk.orchestrator.metrics import METRICS
from sandbox_sdk.orchestrator.optimize import ENOUGH
from sandbox_sdk.values import GIB, MIB

pytestmark = pytest.mark.anyio


async def memory_of(client: AsyncSandboxClient, **options: object) -> int:
    made = await client.create_sandbox("new", **options)  # type: ignore[arg-type]
    return made.info.spec.resources.memory_bytes


@pytest.mark.skipif(not GROUPS, reason="peaks are exact only where control groups count")
async def test_memory_is_proposed_applied_kept_and_taken_back(tmp_path: Path) -> None:
    async with AsyncSandboxClient(state_dir=tmp_path) as client:
        orchestrator = await client.get_orchestrator()
        assert await orchestrator.optimize() == []
        old = await client.create_sandbox("old")
        for _ in range(ENOUGH):
            async with await client.create_sandbox("one") as sandbox:
                await sandbox.run_command("true")
        (found,) = await orchestrator.optimize()
        assert found.current == GIB
        assert 64 * MIB <= found.proposed < GIB
        assert not found.applied
        assert await memory_of(client) == GIB
    async with AsyncSandboxClient(state_dir=tmp_path) as client:
        orchestrator = await client.get_orchestrator()
        (applied,) = await orchestrator.optimize(apply=True)
        assert applied.applied
        assert applied.proposed == found.proposed
        assert await memory_of(client) == found.proposed
        assert await memory_of(client, resources={"memory": "1GiB"}) == GIB
        assert await memory_of(client, resources={"cpu": 0.5}) == found.proposed
        assert await memory_of(client, template="python") == GIB
        assert (await client.get_sandbox(old.id)).info.spec.resources.memory_bytes == GIB
    async with AsyncSandboxClient(state_dir=tmp_path) as client:
        orchestrator = await client.get_orchestrator()
        assert await memory_of(client) == found.proposed
        with pytest.raises(ConfigError, match="applied: host"):
            await orchestrator.revert_optimizations("nothing")
        assert await orchestrator.revert_optimizations() == ["host"]
        assert await memory_of(client) == GIB


async def test_metrics_are_what_prometheus_reads(tmp_path: Path) -> None:
    settings = {"pool_size": 1}
    config = {"policies": [{"name": "none", "metadata": {"team": "red"}, "runtimes": "bubblewrap"}]}
    async with AsyncSandboxClient(
        state_dir=tmp_path, orchestrator=settings, config=config
    ) as client:
        orchestrator = await client.get_orchestrator()
        with pytest.raises(PolicyDenied):
            await client.create_sandbox("denied", metadata={"team": "red"}, runtime="zygote")
        async with await client.create_sandbox("ends") as sandbox:
            await sandbox.run_command("true")
        runs = await client.create_sandbox("runs")
        await runs.setup()
        text = await orchestrator.metrics()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    for name, family in families.items():
        full = f"{name}_total" if family.type == "counter" else name
        assert family.type == METRICS[full].kind
        assert family.documentation == METRICS[full].help
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        assert labels == set(METRICS[full].labels)
    assert {name.removesuffix("_total") for name in METRICS} == families.keys()
    values = {
        (sample.name, *sample.labels.values()): sample.value
        for family in families.values()
        for sample in family.samples
    }
    assert values["sandbox_sdk_sandboxes", "running"] == 1
    assert values["sandbox_sdk_policy_denials_total", "none"] == 1
    assert values["sandbox_sdk_sandbox_exits_total", "ok"] == 1
    starts = [
        value
        for key, value in values.items()
        if key[0] == "sandbox_sdk_sandbox_start_seconds_count"
    ]
    assert sum(starts) == 2
    assert values["sandbox_sdk_memory_bytes",] > MIB
