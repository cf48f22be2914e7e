"""The OpenAI provider against a real server on loopback that fails in every way it can."""

from __future__ import annotations

import pickle
import socket
import traceback
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import attrs
import pytest
from openai_server import ScriptedServer, breaks_off, drips, fails, says, scripted_server, sends

from sandbox_sdk.errors import (
    ModelAuthError,
    ModelError,
    ModelNotFound,
    ModelRateLimited,
    ModelTimeout,
    ModelUnavailable,
    UnsupportedParameter,
)
from sandbox_sdk.experiments.config import ExperimentConfig, Retries
from sandbox_sdk.experiments.models.base import ModelOutput
from sandbox_sdk.experiments.models.registry import ModelRegistry
from sandbox_sdk.experiments.models.retries import generate

pytestmark = pytest.mark.anyio

KEY = "sk-canary-0123456789abcdef"


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


async def ask(models: ModelRegistry, server: ScriptedServer, **config: Any) -> ModelOutput:
    experiment = ExperimentConfig.read(
        {"model": "m", "prompt": "hi", "base_url": server.url, "api_key_env": "MY_KEY", **config}
    )
    provider, request = models.request(experiment)
    request = attrs.evolve(request, messages=({"role": "user", "content": "hi"},))

    async def ignore(error: ModelError, wait: float, sends: int) -> None:
        """Nothing to record."""

    return await generate(provider, request, experiment.retries, ignore)


async def test_a_completion_is_read(models: ModelRegistry, server: ScriptedServer) -> None:
    server.script(says("hello", finish_reason="length"))
    output = await ask(models, server, parameters={"temperature": 0.5, "top_k": 3, "stop": "x"})
    assert output.text == "hello"
    assert (output.stop_reason, output.finish_reason) == ("max_tokens", "length")
    assert (output.usage.input_tokens, output.usage.output_tokens) == (10, 5)
    assert (output.response_model, output.request_id) == ("scripted-1", "req_1")
    assert not output.mock
    assert server.bodies[0] == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "temperature": 0.5,
        "top_k": 3,
        "stop": ["x"],
    }
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"


async def test_a_rate_limit_is_waited_out_as_the_server_asks(
    models: ModelRegistry, server: ScriptedServer, waits: list[float]
) -> None:
    busy = fails(429, "slow down", headers={"Retry-After": "7"})
    server.script(busy, busy, says("ok"))
    output = await ask(models, server)
    assert output.text == "ok"
    assert output.usage.requests == 3
    assert waits == [7, 7]


async def test_a_wait_longer_than_two_minutes_is_refused(
    models: ModelRegistry, server: ScriptedServer, waits: list[float]
) -> None:
    server.script(fails(429, "tomorrow", headers={"Retry-After": "3600"}))
    with pytest.raises(ModelRateLimited, match="tomorrow") as caught:
        await ask(models, server)
    assert caught.value.retry_after == 3600
    assert waits == []
    assert len(server.bodies) == 1


async def test_a_spent_quota_is_not_tried_again(
    models: ModelRegistry, server: ScriptedServer, waits: list[float]
) -> None:
    server.script(fails(429, "pay", code="insufficient_quota"))
    with pytest.raises(ModelRateLimited, match="quota"):
        await ask(models, server)
    assert waits == []


async def test_a_failing_server_is_tried_again_with_growing_jittered_waits(
    models: ModelRegistry, server: ScriptedServer, waits: list[float]
) -> None:
    server.script(fails(500, "oops"))
    with pytest.raises(ModelError, match="oops") as caught:
        await ask(models, server, retries={"max_retries": 4})
    assert caught.value.provider_status == 500
    assert len(server.bodies) == 5
    for wait, most in zip(waits, [0.5, 1, 2, 4], strict=True):
        assert 0.75 * most <= wait <= most


async def test_retries_end_with_their_total_time(
    models: ModelRegistry, server: ScriptedServer, waits: list[float]
) -> None:
    server.script(fails(429, "slow down", headers={"Retry-After": "7"}))
    with pytest.raises(ModelTimeout, match=r"retries\.timeout of 5 s.*slow down"):
        await ask(models, server, retries={"timeout": 5})
    assert waits == []


@pytest.mark.parametrize("data", [b"<html>", b'{"choices": NaN}', b"[" * 100_000, b""])
async def test_what_is_no_json_is_told(
    models: ModelRegistry, server: ScriptedServer, data: bytes
) -> None:
    server.script(sends(data))
    with pytest.raises(ModelError, match="not JSON"):
        await ask(models, server, retries={"max_retries": 0})


@pytest.mark.parametrize(
    "data",
    [
        b"[]",
        b'{"choices": []}',
        b'{"choices": [{"message": 3}]}',
        b'{"choices": [{"message": {"tool_calls": 3}}]}',
        b'{"choices": [{"message": {"tool_calls": [3]}}]}',
    ],
)
async def test_json_that_is_no_completion_is_told(
    models: ModelRegistry, server: ScriptedServer, data: bytes
) -> None:
    server.script(sends(data))
    with pytest.raises(ModelError, match=r"no chat completion|tool call that is none"):
        await ask(models, server, retries={"max_retries": 0})


async def test_half_a_character_and_odd_numbers_are_made_harmless(
    models: ModelRegistry, server: ScriptedServer
) -> None:
    server.script(
        sends(
            b'{"choices": [{"message": {"content": "a\\ud800b"}, "finish_reason": 3}, 7],'
            b' "usage": {"prompt_tokens": -5, "completion_tokens": true}}'
        )
    )
    output = await ask(models, server)
    assert output.texts == ("a?b", "")
    assert output.stop_reason == "unknown"
    assert output.usage.total_tokens == 0


async def test_a_broken_connection_is_told_and_tried_again(
    models: ModelRegistry, server: ScriptedServer, waits: list[float]
) -> None:
    server.script(breaks_off, says("ok"))
    assert (await ask(models, server)).text == "ok"
    assert len(waits) == 1
    server.script(breaks_off)
    with pytest.raises(ModelUnavailable, match="broke"):
        await ask(models, server, retries={"max_retries": 0})


async def test_a_slow_drip_ends_at_the_attempts_deadline(
    models: ModelRegistry, server: ScriptedServer
) -> None:
    released = anyio.Event()
    server.script(drips(released.wait))
    with anyio.fail_after(5), pytest.raises(ModelTimeout, match="attempt_timeout"):
        await ask(models, server, retries={"attempt_timeout": 0.2, "max_retries": 0})
    released.set()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_refused_port_is_unavailable_and_named_not_timed_out(
    models: ModelRegistry, host: str
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        server = ScriptedServer(url=f"http://{host}:{free.getsockname()[1]}/v1")
    config = ExperimentConfig.read({"model": "m", "prompt": "p", "base_url": server.url})
    with pytest.raises(ModelUnavailable) as before:
        await models.check(config)
    with pytest.raises(ModelUnavailable) as during:
        await ask(models, server, retries={"max_retries": 0})
    for error in (before.value, during.value):
        assert server.url in str(error)
        assert "connection refused" in str(error)
        assert "timed out" not in str(error)
        assert isinstance(error, ConnectionError)


async def test_a_host_that_does_not_exist_is_unavailable(models: ModelRegistry) -> None:
    config = ExperimentConfig.read(
        {"model": "m", "prompt": "p", "base_url": "http://no-such-host.invalid/v1"}
    )
    with pytest.raises(ModelUnavailable, match=r"no-such-host\.invalid"):
        await models.check(config)


async def test_a_refused_key_is_told_and_shown_nowhere(
    models: ModelRegistry, server: ScriptedServer
) -> None:
    server.script(fails(401, f"Incorrect API key provided: {KEY}."))
    with pytest.raises(ModelAuthError, match="Incorrect API key") as caught:
        await ask(models, server)
    error = caught.value
    assert error.provider_status == 401
    assert "MY_KEY" in str(error)
    assert isinstance(error, PermissionError)
    for text in (str(error), repr(error), repr(models.redactor)):
        assert "canary" not in text
    assert "canary" not in "".join(traceback.format_exception(error))
    assert b"canary" not in pickle.dumps(error)


async def test_an_answer_that_echoes_the_key_is_cleaned(
    models: ModelRegistry, server: ScriptedServer
) -> None:
    server.script(says(f"your key is {KEY}", calls=[("bash", f'{{"command": "echo {KEY}"}}')]))
    output = await ask(models, server)
    assert "canary" not in repr(output.message)


async def test_a_retired_model_keeps_the_providers_words(
    models: ModelRegistry, server: ScriptedServer
) -> None:
    said = "The model `gpt-3.5-turbo` has been deprecated, learn more at example.com"
    server.script(fails(404, said, code="model_not_found"))
    with pytest.raises(ModelNotFound, match="has been deprecated, learn more") as caught:
        await ask(models, server)
    assert isinstance(caught.value, LookupError)
    server.script(fails(400, "The model m was decommissioned"))
    with pytest.raises(ModelNotFound, match="decommissioned"):
        await ask(models, server)


async def test_max_tokens_is_renamed_once_with_a_warning_where_the_model_wants_it(
    models: ModelRegistry, server: ScriptedServer
) -> None:
    refusal = fails(
        400,
        "Unsupported parameter: 'max_tokens' is not supported with this model. "
        "Use 'max_completion_tokens' instead.",
        code="unsupported_parameter",
        param="max_tokens",
    )
    server.script(refusal, says("ok"))
    output = await ask(models, server, parameters={"max_tokens": 9})
    assert output.usage.requests == 2
    assert "max_completion_tokens" in output.warnings[0]
    assert server.bodies[1]["max_completion_tokens"] == 9
    assert "max_tokens" not in server.bodies[1]
    await ask(models, server, parameters={"max_tokens": 9})
    assert len(server.bodies) == 3


async def test_another_refused_parameter_is_an_error_unless_it_may_be_dropped(
    models: ModelRegistry, server: ScriptedServer
) -> None:
    refusal = fails(
        400,
        "Unsupported value: 'temperature' does not support 0.7 with this model.",
        code="unsupported_value",
        param="temperature",
    )
    server.script(refusal)
    parameters = {"temperature": 0.7, "top_p": 0.5}
    with pytest.raises(UnsupportedParameter, match="drop_unsupported") as caught:
        await ask(models, server, parameters=parameters)
    assert caught.value.parameter == "temperature"
    assert len(server.bodies) == 1
    server.script(refusal, says("ok"))
    output = await ask(models, server, parameters=parameters, drop_unsupported=True)
    assert "'temperature'" in output.warnings[0]
    assert "temperature" not in server.bodies[-1]
    assert server.bodies[-1]["top_p"] == 0.5


async def test_a_full_context_is_an_answer_that_says_so(
    models: ModelRegistry, server: ScriptedServer
) -> None:
    server.script(
        fails(400, "This model's maximum context length is 5", code="context_length_exceeded")
    )
    assert (await ask(models, server)).stop_reason == "model_length"


async def test_no_key_and_no_address_names_three_ways_out() -> None:
    models = ModelRegistry(environ={})
    with pytest.raises(ModelAuthError) as caught:
        await models.check(ExperimentConfig.read({"model": "gpt-5.6-terra", "prompt": "p"}))
    for fix in ("export OPENAI_API_KEY=", '"base_url"', "sandbox-sdk models install smollm2"):
        assert fix in str(caught.value)


async def test_a_named_variable_that_is_not_set_is_told(models: ModelRegistry) -> None:
    config = ExperimentConfig.read({"model": "m", "prompt": "p", "api_key_env": "NO_SUCH"})
    with pytest.raises(ModelAuthError, match="export NO_SUCH="):
        await models.check(config)


async def test_the_openai_key_never_goes_to_an_address_of_a_config(
    server: ScriptedServer,
) -> None:
    models = ModelRegistry(environ={"OPENAI_API_KEY": KEY})
    server.script(says("ok"))
    config = ExperimentConfig.read({"model": "m", "prompt": "p", "base_url": server.url})
    provider, request = models.request(config)
    await provider.generate(request)
    assert "canary" not in str(server.headers[0])
    await models.aclose()


async def test_the_environments_address_gets_the_environments_key(server: ScriptedServer) -> None:
    models = ModelRegistry(environ={"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": server.url})
    server.script(says("ok"))
    provider, request = models.request(ExperimentConfig.read({"model": "m", "prompt": "p"}))
    await provider.check(request)
    await provider.generate(request)
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    await models.aclose()


@pytest.mark.parametrize(
    ("model", "provider", "name"),
    [
        ("gpt-5.6-terra", "openai", "gpt-5.6-terra"),
        ("openai/gpt-5.6-terra", "openai", "gpt-5.6-terra"),
        ("openai:gpt-5.6-terra", "openai", "gpt-5.6-terra"),
        ("openai/Qwen/Qwen3-8B", "openai", "Qwen/Qwen3-8B"),
        ("mock/echo", "mock", "echo"),
        ("mock:echo", "mock", "echo"),
        ("local/smollm2", "local", "smollm2"),
        ("local//models/x.gguf", "local", "/models/x.gguf"),
        ("ft:gpt-5:me", "openai", "ft:gpt-5:me"),
    ],
)
def test_a_models_name_says_who_answers(model: str, provider: str, name: str) -> None:
    found, request = ModelRegistry(environ={}).request(
        ExperimentConfig.read({"model": model, "prompt": "p"})
    )
    assert (found.name, request.model) == (provider, name)


def test_with_an_address_an_unknown_prefix_belongs_to_the_name() -> None:
    config = {"model": "Qwen/Qwen3-8B", "prompt": "p"}
    with pytest.raises(ModelNotFound, match="openai/Qwen/Qwen3-8B"):
        ModelRegistry(environ={}).request(ExperimentConfig.read(config))
    config["base_url"] = "http://127.0.0.1:1/v1"
    _, request = ModelRegistry(environ={}).request(ExperimentConfig.read(config))
    assert request.model == "Qwen/Qwen3-8B"


def test_a_misspelt_provider_is_never_silently_another() -> None:
    with pytest.raises(ModelNotFound, match='did you mean "local"'):
        ModelRegistry(environ={}).request(
            ExperimentConfig.read({"model": "locl/smollm2", "prompt": "p"})
        )


def test_the_default_retries_are_bounded() -> None:
    assert Retries() == Retries(max_retries=5, timeout=900, attempt_timeout=300)
