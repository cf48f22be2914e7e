"""What is OpenAI's own: its form of answers, its refusals, the names of its models."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
from model_apis import APIS, KEY, ask
from openai_server import ScriptedServer, fails, says, scripted_server, sends

from sandbox_sdk.errors import (
    ModelAuthError,
    ModelError,
    ModelNotFound,
    ModelRateLimited,
)
from sandbox_sdk.experiments.config import ExperimentConfig, Retries
from sandbox_sdk.experiments.models.registry import ModelRegistry

pytestmark = pytest.mark.anyio

OPENAI = APIS[0]


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


async def test_a_completion_is_read(models: ModelRegistry, server: ScriptedServer) -> None:
    server.script(says("hello", finish_reason="length"))
    output = await ask(
        OPENAI, models, server, parameters={"temperature": 0.5, "top_k": 3, "stop": "x"}
    )
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


async def test_a_spent_quota_is_not_tried_again(
    models: ModelRegistry, server: ScriptedServer, waits: list[float]
) -> None:
    server.script(fails(429, "pay", code="insufficient_quota"))
    with pytest.raises(ModelRateLimited, match="quota"):
        await ask(OPENAI, models, server)
    assert waits == []


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
        await ask(OPENAI, models, server, retries={"max_retries": 0})


async def test_half_a_character_and_odd_numbers_are_made_harmless(
    models: ModelRegistry, server: ScriptedServer
) -> None:
    server.script(
        sends(
            b'{"choices": [{"message": {"content": "a\\ud800b"}, "finish_reason": 3}, 7],'
            b' "usage": {"prompt_tokens": -5, "completion_tokens": true}}'
        )
    )
    output = await ask(OPENAI, models, server)
    assert output.texts == ("a?b", "")
    assert output.stop_reason == "unknown"
    assert output.usage.total_tokens == 0


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
    output = await ask(OPENAI, models, server, parameters={"max_tokens": 9})
    assert output.usage.requests == 2
    assert "max_completion_tokens" in output.warnings[0]
    assert server.bodies[1]["max_completion_tokens"] == 9
    assert "max_tokens" not in server.bodies[1]
    await ask(OPENAI, models, server, parameters={"max_tokens": 9})
    assert len(server.bodies) == 3


async def test_no_key_and_no_address_names_three_ways_out() -> None:
    models = ModelRegistry(environ={})
    with pytest.raises(ModelAuthError) as caught:
        await models.check(ExperimentConfig.read({"model": "gpt-5.6-terra", "prompt": "p"}))
    for fix in ("export OPENAI_API_KEY=", '"base_url"', "sandbox-sdk models install smollm2"):
        assert fix in str(caught.value)


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
