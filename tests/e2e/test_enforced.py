"""Every cell of the table of ``docs/policies.md``: which rule acts when."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from host import soon

from sandbox_sdk import AsyncSandbox, AsyncSandboxClient, PolicyDenied, SandboxEnded
from sandbox_sdk.engine.templates import key_of
from sandbox_sdk.isolation.walls import cgroups
from sandbox_sdk.orchestrator import enforce
from sandbox_sdk.requirements import parse_packages
from sandbox_sdk.values import EndKind

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

Rules = list[dict[str, Any]]


def rule(**bounds: object) -> Rules:
    return [{"name": "ours", **bounds}]


@asynccontextmanager
async def client_of(
    state: Path, rules: Rules, **settings: object
) -> AsyncGenerator[AsyncSandboxClient, None]:
    """A client under rules, which are written to a file, so that they can be made stricter."""
    config = state.parent / "config.yaml"
    write_rules(config, rules)
    given = {**settings, "orchestrator": {"pool_size": 0}}
    os.environ["SANDBOX_CONFIG"] = str(config)
    try:
        client = AsyncSandboxClient(config=given, state_dir=state)
    finally:
        del os.environ["SANDBOX_CONFIG"]
    async with client:
        yield client


def write_rules(config: Path, rules: Rules) -> None:
    """Write the file at one stroke, and as another file than before."""
    import json

    new = config.with_suffix(".new")
    new.write_text(json.dumps({"policies": rules}))  # JSON is YAML
    new.rename(config)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drift is looked for more often than once a second."""
    monkeypatch.setattr(enforce, "DRIFT_SECONDS", 0.05)


AT_CREATION: list[tuple[Rules, dict[str, object], str]] = [
    (rule(minimum_level="high"), {"security_level": "medium"}, "the level must be at least"),
    (rule(templates=["python"]), {"template": "host"}, "the template must be one of python"),
    (rule(runtimes=["zygote"]), {"runtime": "bubblewrap"}, "the runtime must be one of zygote"),
    (rule(maximum={"memory": "64MiB"}), {"resources": {"memory": "1GiB"}}, "memory must be at"),
    (rule(lifetime=10), {"timeout": 60}, "timeout must be at most 10 seconds, not 60"),
    (rule(cost=0), {}, r"\$0 were to be spent at most"),
    (rule(require=["audit"]), {}, "calls must be recorded"),
    (rule(require=["encryption"]), {}, "what is left on disk must be encrypted"),
]


@pytest.mark.parametrize(
    ("rules", "asked", "reason"), AT_CREATION, ids=[next(reversed(r[0])) for r, *_ in AT_CREATION]
)
async def test_create_is_refused(
    state: Path, rules: Rules, asked: Mapping[str, Any], reason: str
) -> None:
    async with client_of(state, rules) as client:
        with pytest.raises(PolicyDenied, match=reason) as raised:
            await client.create_sandbox("asked", **asked)
        assert raised.value.rule == "ours"
        assert await client.list_sandboxes() == []
        explained = await (await client.get_orchestrator()).explain({"name": "asked", **asked})
        assert [(each.rule, each.when, each.allowed) for each in explained] == [
            ("ours", "create", False)
        ]
        metrics = await (await client.get_orchestrator()).metrics()
        assert 'sandbox_sdk_policy_denials_total{rule="ours"} 1' in metrics


async def test_what_is_within_the_rules_is_allowed(state: Path) -> None:
    rules = rule(
        minimum_level="low",
        templates=["host", "python"],
        runtimes=["zygote", "bubblewrap"],
        maximum={"memory": "1GiB", "pids": 256},
        lifetime=3600,
        concurrency=1,
        cost=1,
    )
    async with client_of(state, rules) as client:
        (explained,) = await (await client.get_orchestrator()).explain({})
        assert explained.allowed
        sandbox = await client.create_sandbox("fine")
        assert (await sandbox.run_code("print(42)")).stdout == "42\n"
        assert await (await client.get_orchestrator()).enforce() == []


async def test_rules_about_others_do_not_act(state: Path) -> None:
    rules: Rules = [
        {"name": "tag", "metadata": {"team": "red"}, "minimum_level": "high"},
        {"name": "who", "clients": ["uid 4242"], "minimum_level": "high"},
    ]
    async with client_of(state, rules) as client:
        await client.create_sandbox("blue", metadata={"team": "blue"})
        with pytest.raises(PolicyDenied, match='rule "tag"'):
            await client.create_sandbox("red", metadata={"team": "red"})


STRICTER: list[tuple[Rules, dict[str, object]]] = [
    (rule(minimum_level="high"), {}),
    (rule(templates=["python"]), {}),
    (rule(runtimes=["bubblewrap"]), {"runtime": "zygote"}),
    (rule(maximum={"memory": "64MiB"}), {}),
    (rule(lifetime=0.01), {"timeout": 60}),
    (rule(cost=0), {}),
    (rule(require=["audit"]), {}),
    (rule(require=["encryption"]), {}),
]
_IDS = [next(reversed(r[0])) for r, _ in STRICTER]


@pytest.mark.parametrize(("rules", "asked"), STRICTER, ids=_IDS)
async def test_start_is_refused_by_rules_that_became_stricter(
    state: Path, rules: Rules, asked: Mapping[str, Any]
) -> None:
    async with client_of(state, []) as client:
        # A rule in the file makes it one that is read again.
        sandbox = await client.create_sandbox("made before", **asked)
        write_rules(state.parent / "config.yaml", rules)
        with pytest.raises(PolicyDenied):
            await sandbox.setup()
        assert (await client.get_sandbox(sandbox.id)).info.state == "created"


@pytest.mark.parametrize(
    ("rules", "asked"),
    [*STRICTER, (rule(runtimes=["bubblewrap"]), {})],
    ids=[*_IDS, "the runtime that it turned out to be"],
)
async def test_what_runs_is_ended_by_rules_that_became_stricter(
    state: Path, rules: Rules, asked: Mapping[str, Any]
) -> None:
    async with client_of(state, []) as client:
        sandbox = await client.create_sandbox("runs", **asked)
        await sandbox.setup()
        write_rules(state.parent / "config.yaml", rules)
        await _is_ended(sandbox, "ours")


async def _is_ended(sandbox: AsyncSandbox, by: str) -> None:
    assert await soon(lambda: _is_lost(sandbox))
    with pytest.raises(SandboxEnded) as raised:
        await sandbox.run_command("true")
    ended = raised.value.ended
    assert ended is not None
    assert (ended.kind, ended.limit) == (EndKind.INFRA, f"policy:{by}")


def _is_lost(sandbox: AsyncSandbox) -> bool:
    link = sandbox._link  # pyright: ignore[reportPrivateUsage]
    return link is not None and link.lost


async def test_a_runtime_that_turns_out_to_be_another_is_ended_before_any_code(
    state: Path,
) -> None:
    async with client_of(state, rule(runtimes=["bubblewrap"])) as client:
        sandbox = await client.create_sandbox("any runtime", files={"mark": "1"})
        with pytest.raises(PolicyDenied, match="must be one of bubblewrap, not zygote"):
            await sandbox.setup()
        assert (await (await client.get_orchestrator()).monitor_resources()).sandboxes == ()


async def test_only_so_many_run_at_once(state: Path) -> None:
    async with client_of(state, rule(concurrency=1)) as client:
        first, second = [await client.create_sandbox(name) for name in ("one", "two")]
        await first.setup()
        with pytest.raises(PolicyDenied, match="1 sandboxes may run at once"):
            await second.setup()
        await first.cleanup()
        assert (await second.run_code("print(1)")).ok


async def test_a_lifetime_counts_all_set_ups(state: Path) -> None:
    """Also those of another client, as the record of it is kept."""
    async with client_of(state, rule(lifetime=60)) as client:
        sandbox = await client.create_sandbox("short", timeout=0.9)
        for _ in range(2):
            await sandbox.setup()
            assert await soon(lambda: _is_lost(sandbox))
    async with client_of(state, rule(lifetime=1)) as client:
        again = await client.get_sandbox(sandbox.id)
        with pytest.raises(PolicyDenied, match="has lived for its 1 seconds"):
            await again.setup()
        await client.delete_sandbox(again.id)


async def test_a_call_is_refused_when_what_may_be_spent_is(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a model cost counts for all sandboxes that the rule is about, and is remembered."""
    monkeypatch.setattr(enforce, "DRIFT_SECONDS", 60.0)  # or it would be ended before it calls
    rules: Rules = [{"name": "purse", "metadata": {"team": "red"}, "cost": 0.001}]
    experiment = {
        "name": "costly",
        "model": "mock/echo",
        "prompt": "hello",
        "prices": {"mock/echo": {"input": 1000, "output": 1000}},
    }
    async with client_of(state, rules) as client:
        sandbox = await client.create_sandbox("red", metadata={"team": "red"})
        free = await client.create_sandbox("blue", metadata={"team": "blue"})
        assert (await sandbox.run_experiment(experiment)).status == "success"
        with pytest.raises(PolicyDenied, match=r"\$0.001 were to be spent at most"):
            await sandbox.run_command("true")
        assert (await free.run_experiment(experiment)).status == "success"
        with pytest.raises(PolicyDenied):
            await client.create_sandbox("more", metadata={"team": "red"})
    async with client_of(state, rules) as client:
        with pytest.raises(PolicyDenied):
            await client.create_sandbox("more", metadata={"team": "red"})


async def test_what_runs_is_ended_once_what_may_be_spent_is(state: Path) -> None:
    experiment = {
        "name": "costly",
        "model": "mock/echo",
        "prompt": "hello",
        "prices": {"mock/echo": {"input": 1000, "output": 1000}},
    }
    async with client_of(state, rule(cost=0.001)) as client:
        sandbox = await client.create_sandbox("spends")
        await sandbox.setup()
        assert (await sandbox.run_experiment(experiment)).status == "success"
        await _is_ended(sandbox, "ours")


async def _nearly_lived(client: AsyncSandboxClient) -> AsyncSandbox:
    """Return a sandbox that runs and has half a second of its hour left."""
    sandbox = await client.create_sandbox("old", timeout=3600)
    opened = client._opened  # pyright: ignore[reportPrivateUsage]
    assert opened is not None
    await opened.store.change_note("policy_lived", sandbox.id, lambda _: "3599.5")
    await sandbox.setup()
    return sandbox


async def test_what_runs_is_ended_once_it_has_lived(state: Path) -> None:
    async with client_of(state, rule(lifetime=3600)) as client:
        sandbox = await _nearly_lived(client)
        await _is_ended(sandbox, "ours")
        assert sandbox.info.ended is not None
        assert "has lived for its 3600 seconds" in sandbox.info.ended.detail


async def test_every_call_is_refused_to_what_has_lived(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enforce, "DRIFT_SECONDS", 60.0)  # or it would be ended before it calls
    async with client_of(state, rule(lifetime=3600)) as client:
        sandbox = await _nearly_lived(client)
        assert (await sandbox.run_code("x = 1", context="kept")).ok
        assert await soon(lambda: _has_lived(client, sandbox))
        await _every_call_is_refused(sandbox, "has lived for its 3600 seconds")


def _has_lived(client: AsyncSandboxClient, sandbox: AsyncSandbox) -> bool:
    enforcer = client._opened.enforcer  # type: ignore[union-attr]
    try:
        enforcer.calling(sandbox.info)
    except PolicyDenied:
        return True
    return False


async def test_every_call_is_refused_where_what_is_required_is_not_in_force(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enforce, "DRIFT_SECONDS", 60.0)  # or it would be ended before it calls
    async with client_of(state, []) as client:
        sandbox = await client.create_sandbox("unrecorded")
        assert (await sandbox.run_code("x = 1", context="kept")).ok
        write_rules(state.parent / "config.yaml", rule(require=["audit"]))
        assert len(await (await client.get_orchestrator()).policies()) == 1  # they are read
        await _every_call_is_refused(sandbox, "calls must be recorded")


async def _every_call_is_refused(sandbox: AsyncSandbox, reason: str) -> None:
    with pytest.raises(PolicyDenied, match=reason):
        await sandbox.run_command("true")
    with pytest.raises(PolicyDenied, match=reason):
        await sandbox.run_code("1")
    with pytest.raises(PolicyDenied, match=reason):
        await sandbox.run_code("x", context="kept")
    with pytest.raises(PolicyDenied, match=reason):
        async with sandbox.start_command("true"):
            pytest.fail("it was started")
    with pytest.raises(PolicyDenied, match=reason):
        await sandbox.files.read("/etc/passwd")
    with pytest.raises(PolicyDenied, match=reason):
        await sandbox.files.write("new", "text")
    with pytest.raises(PolicyDenied, match=reason):
        await sandbox.files.list()
    with pytest.raises(PolicyDenied, match=reason):
        await sandbox.files.remove("new")
    with pytest.raises(PolicyDenied, match=reason):
        await anext(sandbox.files.watch())


@pytest.mark.skipif(cgroups.find()[0] is None, reason="no control group holds limits here")
async def test_a_limit_that_somebody_raised_is_found(state: Path) -> None:
    async with client_of(state, rule(maximum={"memory": "256MiB"})) as client:
        sandbox = await client.create_sandbox("bound", resources={"memory": "256MiB"})
        await sandbox.setup()
        assert await (await client.get_orchestrator()).enforce() == []
        held = client._opened.backend._backend._held[sandbox.id]  # type: ignore[union-attr]
        memory = Path(held.running.group.folders["memory"])
        names = ("memory.max", "memory.memsw.limit_in_bytes", "memory.limit_in_bytes")
        for name in names:
            if (memory / name).exists():
                (memory / name).write_text(str(1024**3))
        await _is_ended(sandbox, "ours")


async def test_a_batch_under_a_rule_is_refused_before_anything_is_done(state: Path) -> None:
    config = {
        "name": "batch",
        "model": "mock/echo",
        "prompt": "hello",
        "tools": ["bash"],
        "sandbox": {"security_level": "medium"},
    }
    async with client_of(state, rule(minimum_level="high")) as client:
        with pytest.raises(PolicyDenied):
            await client.run_batch(config)
        assert not list((state / "runs").iterdir())


async def test_an_attempt_that_a_rule_ends_is_infrastructure_and_names_the_rule(
    state: Path,
) -> None:
    rules: Rules = [{"name": "purse", "cost": 0.001}]
    config = {
        "name": "batch",
        "model": "mock/echo",
        "dataset": [{"id": "1", "input": "a"}, {"id": "2", "input": "b"}],
        "prices": {"mock/echo": {"input": 1000, "output": 1000}},
        "max_concurrency": 1,
    }
    async with client_of(state, rules) as client:
        result = await client.run_batch(config)
        ends = [(trial.state, trial.error) for trial in result.trials]
        assert ends == [("completed", None), ("infra_error", "policy:purse")]
        journal = (state / "runs" / result.id / "events.jsonl").read_text()
        assert journal.count('"type":"model.requested"') == 1  # the second asked nobody


async def test_a_rule_about_a_batch_is_about_the_sandboxes_of_its_scorers(state: Path) -> None:
    scorer = {"type": "command", "command": "true"}
    config = {
        "name": "batch",
        "model": "mock/echo",
        "prompt": "hello",
        "sandbox": {"metadata": {"team": "red"}},
        "scorers": [scorer | {"name": "fine"}, scorer | {"name": "large", "sandbox": LARGE}],
    }
    rules: Rules = [{"name": "red", "metadata": {"team": "red"}, "maximum": {"memory": "1GiB"}}]
    async with client_of(state, rules) as client:
        result = await client.run_batch(config)
        (trial,) = result.trials
        fine, large = trial.scores.values()
        assert (fine.value, large.value) == (1, None)
        journal = (state / "runs" / result.id / "events.jsonl").read_text()
        assert journal.count('rule \\"red\\"') == 1


LARGE = {"resources": {"memory": "2GiB"}}


async def test_rules_that_cannot_be_read_allow_nothing_new(state: Path) -> None:
    async with client_of(state, rule(minimum_level="low")) as client:
        sandbox = await client.create_sandbox("before")
        (state.parent / "config.yaml").write_text("policies: [{name: ours, minimum_level: lwo}]")
        with pytest.raises(PolicyDenied, match="the rules cannot be read"):
            await client.create_sandbox("after")
        with pytest.raises(PolicyDenied, match="the rules cannot be read"):
            await sandbox.setup()


async def test_packages_are_no_template_of_a_name_that_they_are_written_like(state: Path) -> None:
    async with client_of(state, rule(templates=["python", "course-*"])) as client:
        for packages in (["course-of-anybody"], ["python"], ["course-1", "evil"]):
            with pytest.raises(PolicyDenied, match="the template must be one of python, course-"):
                await client.create_sandbox("asked", packages=packages)
    key = key_of(parse_packages(["course-1"]))
    async with client_of(state, rule(templates=[key])) as client:
        await client.create_sandbox("asked", packages=["course-1"])
