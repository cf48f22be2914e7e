"""Cassettes: what is answered from them, what is recorded, what they refuse, and what they hide."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest
from blockbuster import blockbuster_ctx
from openai_server import ScriptedServer, says, scripted_server
from plain_workplace import PlainWorkplace

from sandbox_sdk.errors import ConfigError, ReplayMiss, StateError
from sandbox_sdk.experiments.cassette import Cassette
from sandbox_sdk.experiments.models.base import ModelRequest
from sandbox_sdk.experiments.models.mock import MockProvider
from sandbox_sdk.experiments.models.registry import ModelRegistry
from sandbox_sdk.experiments.records.redaction import Redactor
from sandbox_sdk.experiments.records.run_folder import find_runs
from sandbox_sdk.experiments.records.run_record import read_run
from sandbox_sdk.experiments.results.result import ExperimentResult
from sandbox_sdk.experiments.run import run_experiment

pytestmark = pytest.mark.anyio

KEY = "sk-canary-0123456789abcdef"


class Bench:
    """A workplace, a server that may answer, and a cassette; each run has a client of its own."""

    def __init__(self, folder: Path, server: ScriptedServer) -> None:
        self.folder = folder
        self.server = server
        self.tape = folder / "tapes" / "tape.jsonl"
        self.environ = {"MY_KEY": KEY}

    async def run(self, cache: str, **config: Any) -> ExperimentResult:
        models = ModelRegistry(environ=self.environ)
        whole = {
            "model": "m",
            "prompt": "hi",
            "base_url": self.server.url,
            "api_key_env": "MY_KEY",
            "cache": cache,
            "cassette": str(self.tape),
            **config,
        }
        whole = {name: value for name, value in whole.items() if value is not None}
        try:
            with blockbuster_ctx("sandbox_sdk.experiments"):
                return await run_experiment(
                    whole,
                    PlainWorkplace(self.folder / "work"),
                    runs_dir=self.folder / "runs",
                    models=models,
                )
        finally:
            await models.aclose()

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.tape.read_text().splitlines()]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncGenerator[Bench]:
    async with scripted_server() as server:
        yield Bench(tmp_path, server)


TOOL = says(calls=[("bash", '{"command": "echo hi"}')])


async def test_a_replay_needs_no_key_and_no_server_and_gives_the_same_result(bench: Bench) -> None:
    prices = {"m": {"input": 1, "output": 1}}
    config: dict[str, Any] = {"tools": ["bash"], "prices": prices}
    bench.server.script(TOOL, says("done"))
    recorded = await bench.run("record", **config)
    assert len(bench.server.bodies) == 2
    bench.environ.clear()
    replayed = await bench.run("replay", **config)
    assert len(bench.server.bodies) == 2
    assert replayed.messages == recorded.messages
    assert (replayed.output, replayed.usage, replayed.cost) == (
        recorded.output,
        recorded.usage,
        recorded.cost,
    )
    assert replayed.cost is not None
    assert (recorded.provenance.replayed, replayed.provenance.replayed) == (False, True)
    (first, second) = find_runs(bench.folder / "runs")
    # A replay sent nothing, so its journal has no request that anyone could bill.
    for folder, sent in ((first, 2), (second, 0)):
        types = [event.type for event in read_run(folder).events]
        assert types.count("model.requested") == sent
        assert types.count("model.responded") == 2


async def test_use_asks_only_what_the_cassette_lacks(bench: Bench) -> None:
    bench.server.script(says("first"))
    assert (await bench.run("use")).output == "first"
    bench.server.script(says("second"))
    assert (await bench.run("use")).output == "first"
    assert (await bench.run("use", prompt="another")).output == "second"
    assert len(bench.server.bodies) == len(bench.lines()) == 2


async def test_record_asks_always_and_the_last_answer_counts(bench: Bench) -> None:
    bench.server.script(says("first"))
    await bench.run("record")
    bench.server.script(says("second"))
    assert (await bench.run("record")).output == "second"
    assert (await bench.run("replay")).output == "second"


async def test_a_miss_is_an_error_with_how_the_nearest_call_differs(bench: Bench) -> None:
    bench.server.script(says("ok"))
    with pytest.raises(ReplayMiss, match="holds no answers at all"):
        await bench.run("replay")
    await bench.run("record", parameters={"temperature": 0.5})
    with pytest.raises(ReplayMiss) as caught:
        await bench.run("replay", parameters={"temperature": 0.7})
    text = str(caught.value)
    assert '-  "temperature": 0.5' in text
    assert '+  "temperature": 0.7' in text
    assert '"cache": "use"' in text
    assert len(bench.server.bodies) == 1


async def test_repeats_and_calls_never_share_an_answer(tmp_path: Path) -> None:
    cassette = Cassette(tmp_path / "tape.jsonl", "use")
    request = ModelRequest(model="echo", messages=({"role": "user", "content": "x"},))
    output = await MockProvider().generate(request)
    await cassette.keep("mock", request, "repeat 1", output)
    second = attrs.evolve(request, call=2)
    found = [
        await cassette.find("mock", asked, trial)
        for asked, trial in ((request, "repeat 1"), (request, "repeat 2"), (second, "repeat 1"))
    ]
    assert [each is not None for each in found] == [True, False, False]


async def test_ids_that_a_provider_makes_up_do_not_decide(tmp_path: Path) -> None:
    def conversation(identity: str) -> ModelRequest:
        call = {"id": identity, "type": "function", "function": {"name": "f", "arguments": "{}"}}
        return ModelRequest(
            model="echo",
            messages=(
                {"role": "user", "content": "x"},
                {"role": "assistant", "content": "", "tool_calls": [call]},
                {"role": "tool", "tool_call_id": identity, "content": "y"},
            ),
        )

    cassette = Cassette(tmp_path / "tape.jsonl", "use")
    output = await MockProvider().generate(conversation("a"))
    await cassette.keep("mock", conversation("a"), "t", output)
    found = await cassette.find("mock", conversation("b"), "t")
    assert found is not None
    assert found.output == output


async def test_no_key_or_secret_header_is_written(bench: Bench) -> None:
    bench.server.script(says(f"you sent {KEY}"))
    headers = {"X-Gateway-Token": "hdr-canary-123", "X-Team": "blue"}
    config: dict[str, Any] = {
        "prompt": f"remember {KEY}",
        "parameters": {"extra_headers": headers},
    }
    await bench.run("record", **config)
    text = bench.tape.read_text()
    assert "canary" not in text
    assert '"X-Team":"blue"' in text
    assert (await bench.run("replay", **config)).output == "you sent [redacted]"


async def test_a_torn_last_line_is_left_out_and_cut_off_by_the_next_answer(bench: Bench) -> None:
    bench.server.script(says("ok"))
    await bench.run("record")
    whole = bench.tape.read_bytes()
    with bench.tape.open("ab") as file:
        file.write(whole[:-20])
    assert (await bench.run("use")).output == "ok"
    await bench.run("use", prompt="another")
    assert bench.tape.read_bytes().startswith(whole)
    assert len(bench.lines()) == 2


@pytest.mark.parametrize(
    "line",
    [
        b"not json\n",
        b"[1]\n",
        b"[" * 100_000 + b"\n",
        b'{"key":"k","trial":"t","call":1,"time":0,"request":{},"output":3}\n',
    ],
)
async def test_damage_is_an_error_that_names_the_file(bench: Bench, line: bytes) -> None:
    bench.server.script(says("ok"))
    await bench.run("record")
    with bench.tape.open("ab") as file:
        file.write(line)
    with pytest.raises(StateError, match=r"tape\.jsonl is damaged: line 2"):
        await bench.run("replay")


async def test_an_answer_that_is_none_is_damage_too(bench: Bench) -> None:
    bench.server.script(says("ok"))
    await bench.run("record")
    (entry,) = bench.lines()
    entry["output"]["usage"]["input_tokens"] = "many"
    bench.tape.write_text(json.dumps(entry) + "\n")
    with pytest.raises(StateError, match=r"output\.usage\.input_tokens"):
        await bench.run("replay")


async def test_a_cassette_that_cannot_be_written_is_an_error(bench: Bench) -> None:
    bench.server.script(says("ok"))
    bench.tape.mkdir(parents=True)
    with pytest.raises(StateError, match="cannot be read"):
        await bench.run("use")
    assert bench.server.bodies == []


async def test_several_writers_share_a_file(tmp_path: Path) -> None:
    tapes = [Cassette(tmp_path / "tape.jsonl", "use", Redactor()) for _ in range(3)]
    provider = MockProvider()

    async def write(tape: Cassette, number: int) -> None:
        request = ModelRequest(
            model="echo", messages=({"role": "user", "content": "x" * 100 * number},), call=number
        )
        await tape.keep("mock", request, "t", await provider.generate(request))

    async with anyio.create_task_group() as group:
        for number in range(1, 31):
            group.start_soon(write, tapes[number % 3], number)
    fresh = Cassette(tmp_path / "tape.jsonl", "replay")
    for number in range(1, 31):
        request = ModelRequest(
            model="echo", messages=({"role": "user", "content": "x" * 100 * number},), call=number
        )
        found = await fresh.find("mock", request, "t")
        assert found is not None
        assert len(found.output.text) == 100 * number


async def test_a_mode_without_a_cassette_is_refused(bench: Bench) -> None:
    with pytest.raises(ConfigError, match=r"experiment\.cassette: is required"):
        await bench.run("use", cassette=None)
    with pytest.raises(ConfigError, match=r"experiment\.cache: no such word"):
        await bench.run("replya")
