"""What every provider over HTTP keeps, against a real server that fails in every way it can."""

from __future__ import annotations

import json
import pickle
import socket
import traceback
from collections.abc import AsyncGenerator

import anyio
import pytest
from model_apis import APIS, KEY, Api, ask
from openai_server import ScriptedServer, breaks_off, drips, scripted_server, sends

from sandbox_sdk.errors import (
    ModelAuthError,
    ModelError,
    ModelNotFound,
    ModelRateLimited,
    ModelTimeout,
    ModelUnavailable,
    UnsupportedParameter,
)
from sandbox_sdk.experiments.config import ExperimentConfig
from sandbox_sdk.experiments.models.registry import ModelRegistry

pytestmark = pytest.mark.anyio


@pytest.fixture(params=APIS, ids=lambda api: api.name)
def api(request: pytest.FixtureRequest) -> Api:
    found: Api = request.param
    return found


@pytest.fixture
async def server() -> AsyncGenerator[ScriptedServer]:
    async with scripted_server() as server:
        yield server


@pytest.fixture
async def models() -> AsyncGenerator[ModelRegistry]:
    registry = ModelRegistry(environ={"MY_KEY": KEY})
    yield registry
    await registry.aclose()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Record the waits between sends instead of waiting."""
    recorded: list[float] = []

    async def note(seconds: float) -> None:
        recorded.append(seconds)

    monkeypatch.setattr("sandbox_sdk.experiments.models.retries.anyio.sleep", note)
    return recorded


async def test_an_answer_is_read(api: Api, models: ModelRegistry, server: ScriptedServer) -> None:
    server.script(api.says("hello"))
    output = await ask(api, models, server, parameters={"max_tokens": 9, "stop": "x"})
    assert (output.text, output.stop_reason) == ("hello", "stop")
    assert (output.usage.input_tokens, output.usage.output_tokens) == (10, 5)
    assert (output.usage.requests, output.usage.unmetered_requests) == (1, 0)
    assert (output.response_model, output.request_id) == ("scripted-1", "req_1")
    assert not output.mock
    assert not output.warnings
    assert server.bodies[0]["model"] == "m"
    assert server.bodies[0]["max_tokens"] == 9
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"


async def test_tool_calls_are_read_and_their_results_sent(
    api: Api, models: ModelRegistry, server: ScriptedServer
) -> None:
    server.script(api.says("wait", calls=[("bash", '{"command": "ls"}'), ("bash", "{}")]))
    output = await ask(api, models, server)
    assert output.stop_reason == "tool_calls"
    first, second = output.tool_uses
    assert (first.name, json.loads(first.arguments)) == ("bash", {"command": "ls"})
    assert first.id != second.id
    results = [
        {"role": "tool", "tool_call_id": use.id, "content": f"result of {use.id}"}
        for use in output.tool_uses
    ]
    question = {"role": "user", "content": "hi"}
    await ask(api, models, server, messages=[question, output.message, *results])
    sent = json.dumps(server.bodies[-1]["messages"])
    for use in output.tool_uses:
        assert f"result of {use.id}" in sent


async def test_what_a_refusal_and_an_outage_cost_is_told(
    api: Api, models: ModelRegistry, server: ScriptedServer
) -> None:
    for status, unbilled in ((429, True), (400, True), (408, False), (500, False), (529, False)):
        server.script(api.fails(status, "no"))
        with pytest.raises(ModelError) as caught:
            await ask(api, models, server, retries={"max_retries": 0})
        assert caught.value.unbilled == unbilled, status


async def test_a_rate_limit_is_waited_out_as_the_server_asks(
    api: Api, models: ModelRegistry, server: ScriptedServer, waits: list[float]
) -> None:
    busy = api.fails(429, "slow down", headers={"Retry-After": "7"})
    server.script(busy, busy, api.says("ok"))
    output = await ask(api, models, server)
    assert output.text == "ok"
    assert output.usage.requests == 3
    assert waits == [7, 7]


async def test_a_wait_longer_than_two_minutes_is_refused(
    api: Api, models: ModelRegistry, server: ScriptedServer, waits: list[float]
) -> None:
    server.script(api.fails(429, "tomorrow", headers={"Retry-After": "3600"}))
    with pytest.raises(ModelRateLimited, match="tomorrow") as caught:
        await ask(api, models, server)
    assert caught.value.retry_after == 3600
    assert waits == []
    assert len(server.bodies) == 1


async def test_a_failing_server_is_tried_again_with_growing_jittered_waits(
    api: Api, models: ModelRegistry, server: ScriptedServer, waits: list[float]
) -> None:
    server.script(api.fails(500, "oops"))
    with pytest.raises(ModelError, match="oops") as caught:
        await ask(api, models, server, retries={"max_retries": 4})
    assert caught.value.provider_status == 500
    assert len(server.bodies) == 5
    for wait, most in zip(waits, [0.5, 1, 2, 4], strict=True):
        assert 0.75 * most <= wait <= most


async def test_retries_end_with_their_total_time(
    api: Api, models: ModelRegistry, server: ScriptedServer, waits: list[float]
) -> None:
    server.script(api.fails(429, "slow down", headers={"Retry-After": "7"}))
    with pytest.raises(ModelTimeout, match=r"retries\.timeout of 5 s.*slow down"):
        await ask(api, models, server, retries={"timeout": 5})
    assert waits == []


@pytest.mark.parametrize("data", [b"<html>", b'{"choices": NaN}', b"[" * 100_000, b""])
async def test_what_is_no_json_is_told(
    api: Api, models: ModelRegistry, server: ScriptedServer, data: bytes
) -> None:
    server.script(sends(data))
    with pytest.raises(ModelError, match="not JSON"):
        await ask(api, models, server, retries={"max_retries": 0})


async def test_a_broken_connection_is_told_and_tried_again(
    api: Api, models: ModelRegistry, server: ScriptedServer, waits: list[float]
) -> None:
    server.script(breaks_off, api.says("ok"))
    assert (await ask(api, models, server)).text == "ok"
    assert len(waits) == 1
    server.script(breaks_off)
    with pytest.raises(ModelUnavailable, match="broke"):
        await ask(api, models, server, retries={"max_retries": 0})


async def test_a_slow_drip_ends_at_the_attempts_deadline(
    api: Api, models: ModelRegistry, server: ScriptedServer
) -> None:
    released = anyio.Event()
    server.script(drips(released.wait))
    with anyio.fail_after(5), pytest.raises(ModelTimeout, match="attempt_timeout"):
        await ask(api, models, server, retries={"attempt_timeout": 0.2, "max_retries": 0})
    released.set()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_refused_port_is_unavailable_and_named_not_timed_out(
    api: Api, models: ModelRegistry, host: str
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        server = ScriptedServer(url=f"http://{host}:{free.getsockname()[1]}/v1")
    config = ExperimentConfig.read({"model": api.model, "prompt": "p", "base_url": server.url})
    with pytest.raises(ModelUnavailable) as before:
        await models.check(config)
    with pytest.raises(ModelUnavailable) as during:
        await ask(api, models, server, retries={"max_retries": 0})
    for error in (before.value, during.value):
        assert server.url in str(error)
        assert "connection refused" in str(error)
        assert "timed out" not in str(error)
        assert isinstance(error, ConnectionError)


async def test_a_host_that_does_not_exist_is_unavailable(api: Api, models: ModelRegistry) -> None:
    config = ExperimentConfig.read(
        {"model": api.model, "prompt": "p", "base_url": "http://no-such-host.invalid/v1"}
    )
    with pytest.raises(ModelUnavailable, match=r"no-such-host\.invalid"):
        await models.check(config)


async def test_a_refused_key_is_told_and_shown_nowhere(
    api: Api, models: ModelRegistry, server: ScriptedServer
) -> None:
    server.script(api.fails(401, f"Incorrect API key provided: {KEY}."))
    with pytest.raises(ModelAuthError, match="Incorrect API key") as caught:
        await ask(api, models, server)
    error = caught.value
    assert error.provider_status == 401
    assert "MY_KEY" in str(error)
    assert isinstance(error, PermissionError)
    for text in (str(error), repr(error), repr(models.redactor)):
        assert "canary" not in text
    assert "canary" not in "".join(traceback.format_exception(error))
    assert b"canary" not in pickle.dumps(error)


async def test_an_answer_that_echoes_the_key_is_cleaned(
    api: Api, models: ModelRegistry, server: ScriptedServer
) -> None:
    server.script(api.says(f"your key is {KEY}", calls=[("bash", f'{{"command": "echo {KEY}"}}')]))
    output = await ask(api, models, server)
    assert "canary" not in repr(output.message)


async def test_a_retired_model_keeps_the_providers_words(
    api: Api, models: ModelRegistry, server: ScriptedServer
) -> None:
    said = "The model `gpt-3.5-turbo` has been deprecated, learn more at example.com"
    server.script(api.fails(404, said, code="model_not_found"))
    with pytest.raises(ModelNotFound, match="has been deprecated, learn more") as caught:
        await ask(api, models, server)
    assert isinstance(caught.value, LookupError)
    server.script(api.fails(400, "The model m was decommissioned"))
    with pytest.raises(ModelNotFound, match="decommissioned"):
        await ask(api, models, server)


async def test_another_refused_parameter_is_an_error_unless_it_may_be_dropped(
    api: Api, models: ModelRegistry, server: ScriptedServer
) -> None:
    refusal = api.fails(
        400,
        "Unsupported value: 'temperature' does not support 0.7 with this model.",
        code="unsupported_value",
        param="temperature",
    )
    server.script(refusal)
    parameters = {"temperature": 0.7, "top_p": 0.5, "max_tokens": 9}
    with pytest.raises(UnsupportedParameter, match="drop_unsupported") as caught:
        await ask(api, models, server, parameters=parameters)
    assert caught.value.parameter == "temperature"
    assert len(server.bodies) == 1
    server.script(refusal, api.says("ok"))
    output = await ask(api, models, server, parameters=parameters, drop_unsupported=True)
    assert "'temperature'" in output.warnings[0]
    assert "temperature" not in server.bodies[-1]
    assert server.bodies[-1]["top_p"] == 0.5


async def test_a_full_context_is_an_answer_that_says_so(
    api: Api, models: ModelRegistry, server: ScriptedServer
) -> None:
    server.script(
        api.fails(400, "This model's maximum context length is 5", code="context_length_exceeded")
    )
    assert (await ask(api, models, server)).stop_reason == "model_length"


async def test_a_named_variable_that_is_not_set_is_told(api: Api, models: ModelRegistry) -> None:
    config = ExperimentConfig.read({"model": api.model, "prompt": "p", "api_key_env": "NO_SUCH"})
    with pytest.raises(ModelAuthError, match="export NO_SUCH="):
        await models.check(config)


async def test_the_providers_key_never_goes_to_an_address_of_a_config(
    api: Api, server: ScriptedServer
) -> None:
    models = ModelRegistry(environ={api.variable("API_KEY"): KEY})
    server.script(api.says("ok"))
    config = ExperimentConfig.read({"model": api.model, "prompt": "p", "base_url": server.url})
    provider, request = models.request(config)
    await provider.generate(request)
    assert "canary" not in str(server.headers[0])
    await models.aclose()


async def test_the_environments_address_gets_the_environments_key(
    api: Api, server: ScriptedServer
) -> None:
    models = ModelRegistry(
        environ={api.variable("API_KEY"): KEY, api.variable("BASE_URL"): server.url}
    )
    server.script(api.says("ok"))
    provider, request = models.request(ExperimentConfig.read({"model": api.model, "prompt": "p"}))
    await provider.check(request)
    await provider.generate(request)
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    await models.aclose()
