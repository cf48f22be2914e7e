"""What is Anthropic's own: conversations as its messages, its answers, what it has no word for."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncGenerator
from typing import Any

import attrs
import pytest
from anthropic_server import fails, says
from model_apis import APIS, KEY, ask
from openai_server import ScriptedServer, scripted_server, sends

from sandbox_sdk.errors import ModelAuthError, ModelError, ModelNotFound, UnsupportedParameter
from sandbox_sdk.experiments.config import ExperimentConfig
from sandbox_sdk.experiments.models.anthropic import DEFAULT_MAX_TOKENS
from sandbox_sdk.experiments.models.registry import ModelRegistry
from sandbox_sdk.experiments.results.result import ToolError
from sandbox_sdk.experiments.tools.tool_arguments import parse_arguments
from sandbox_sdk.experiments.tools.tool_kinds import tool_schemas

pytestmark = pytest.mark.anyio

ANTHROPIC = APIS[1]


@pytest.fixture
async def server() -> AsyncGenerator[ScriptedServer]:
    async with scripted_server() as server:
        yield server


@pytest.fixture
async def models() -> AsyncGenerator[ModelRegistry]:
    registry = ModelRegistry(environ={"MY_KEY": KEY})
    yield registry
    await registry.aclose()


def use(identity: str, arguments: str) -> dict[str, Any]:
    return {"id": identity, "type": "function", "function": {"name": "f", "arguments": arguments}}


async def test_a_conversation_becomes_turns_that_alternate(
    models: ModelRegistry, server: ScriptedServer
) -> None:
    server.script(says("ok"))
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "developer", "content": "be kind"},
        {"role": "user", "content": "one"},
        {"role": "user", "content": [{"type": "text", "text": "two"}]},
        {"role": "assistant", "content": "", "tool_calls": [use("a", '{"x": 1}'), use("b", "no")]},
        {"role": "tool", "tool_call_id": "a", "content": "first"},
        {"role": "tool", "tool_call_id": "b", "content": ""},
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBO"}},
                {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
            ],
        },
    ]
    await ask(ANTHROPIC, models, server, messages=messages)
    body = server.bodies[0]
    assert body["system"] == "be brief\n\nbe kind"
    assert body["messages"] == [
        {
            "role": "user",
            "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}},
                {"type": "tool_use", "id": "b", "name": "f", "input": {"raw": "no"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "a",
                    "content": [{"type": "text", "text": "first"}],
                },
                {"type": "tool_result", "tool_use_id": "b"},
                {
                    "type": "image",
                    "source": {"type": "base64", "media_type": "image/png", "data": "iVBO"},
                },
                {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
            ],
        },
    ]


async def test_parameters_and_tools_have_their_own_form(
    models: ModelRegistry, server: ScriptedServer
) -> None:
    server.script(says("ok"))
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    config = {
        "tools": ["bash"],
        "parameters": {
            "temperature": 0.5,
            "top_k": 3,
            "max_tokens": 9,
            "n": 1,
            "stop": ["x", "y"],
            "reasoning_effort": "low",
            "tool_choice": "required",
            "parallel_tool_calls": False,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "a", "schema": schema},
            },
            "extra_body": {"thinking": {"type": "adaptive"}},
            "extra_headers": {"X-Team": "blue"},
        },
    }
    experiment = ExperimentConfig.read(
        {"model": "anthropic/m", "prompt": "p", "base_url": server.url, **config}
    )
    provider, request = models.request(experiment)
    messages = ({"role": "user", "content": "hi"},)
    output = await provider.generate(
        attrs.evolve(request, messages=messages, tools=tool_schemas(experiment.tools))
    )
    assert not output.warnings
    body = server.bodies[0]
    (tool,) = body.pop("tools")
    assert (tool["name"], tool["input_schema"]["required"]) == ("bash", ["command"])
    assert body == {
        "model": "m",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        "max_tokens": 9,
        "stop_sequences": ["x", "y"],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
        "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": schema}},
        "temperature": 0.5,
        "top_k": 3,
        "thinking": {"type": "adaptive"},
    }
    assert server.headers[0]["X-Team"] == "blue"


async def test_max_tokens_is_sent_with_a_warning_where_the_config_has_none(
    models: ModelRegistry, server: ScriptedServer
) -> None:
    server.script(says("ok"))
    output = await ask(ANTHROPIC, models, server)
    assert server.bodies[0]["max_tokens"] == DEFAULT_MAX_TOKENS == 4096
    (warning,) = output.warnings
    assert "4,096 was sent" in warning


async def test_hidden_reasoning_goes_back_as_it_came(
    models: ModelRegistry, server: ScriptedServer
) -> None:
    thought = {"type": "thinking", "thinking": "hm", "signature": "sig=="}
    content = [
        thought,
        {"type": "redacted_thinking", "data": "xyz"},
        {"type": "server_tool_use", "name": "search"},
        {"type": "tool_use", "id": "t1", "name": "f", "input": {}},
    ]
    details = {"output_tokens_details": {"thinking_tokens": 4}}
    usage = {"input_tokens": 1, "output_tokens": 5, **details}
    server.script(says(content=content, usage=usage))
    output = await ask(ANTHROPIC, models, server)
    assert output.usage.reasoning_tokens == 4
    question = {"role": "user", "content": "hi"}
    result = {"role": "tool", "tool_call_id": "t1", "content": "x"}
    provider, request = models.request(
        ExperimentConfig.read({"model": "anthropic/m", "prompt": "p", "base_url": server.url})
    )
    await provider.generate(attrs.evolve(request, messages=(question, output.message, result)))
    sent = server.bodies[1]["messages"][1]["content"]
    assert sent == [thought, content[1], content[3]]


async def test_all_input_is_counted_cached_or_not(
    models: ModelRegistry, server: ScriptedServer
) -> None:
    usage = {
        "input_tokens": 10,
        "cache_read_input_tokens": 300,
        "cache_creation_input_tokens": 20,
        "output_tokens": 5,
    }
    server.script(says("ok", usage=usage))
    found = (await ask(ANTHROPIC, models, server)).usage
    assert (found.input_tokens, found.cache_read_tokens, found.cache_write_tokens) == (330, 300, 20)
    server.script(says("ok", usage={"input_tokens": -1, "output_tokens": True}))
    found = (await ask(ANTHROPIC, models, server)).usage
    assert (found.total_tokens, found.unmetered_requests) == (0, 1)


@pytest.mark.parametrize(
    ("reason", "meant"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "max_tokens"),
        ("refusal", "content_filter"),
        ("model_context_window_exceeded", "model_length"),
        ("pause_turn", "unknown"),
        (None, "unknown"),
        (3, "unknown"),
    ],
)
async def test_every_reason_to_stop_has_our_word(
    models: ModelRegistry, server: ScriptedServer, reason: Any, meant: str
) -> None:
    server.script(says("x", stop_reason=reason))
    assert (await ask(ANTHROPIC, models, server)).stop_reason == meant


@pytest.mark.parametrize(
    "body",
    [
        [],
        {"type": "error"},
        {"type": "message", "content": "text"},
        {"type": "message", "content": [3]},
        {"type": "message", "content": [{"type": "tool_use", "id": "x"}]},
    ],
)
async def test_json_that_is_no_message_is_told(
    models: ModelRegistry, server: ScriptedServer, body: Any
) -> None:
    server.script(sends(json.dumps(body).encode()))
    with pytest.raises(ModelError, match=r"no message|tool call that is none"):
        await ask(ANTHROPIC, models, server, retries={"max_retries": 0})


async def test_half_a_character_is_made_harmless_in_text_and_kept_from_tools(
    models: ModelRegistry, server: ScriptedServer
) -> None:
    block = '{"type": "tool_use", "id": "t", "name": "f", "input": {"a\\ud800": "b\\ud800"}}'
    text = '{"type": "text", "text": "a\\ud800b"}'
    server.script(sends(f'{{"type": "message", "content": [{text}, {block}]}}'.encode()))
    output = await ask(ANTHROPIC, models, server)
    assert output.text == "a?b"
    arguments = output.tool_uses[0].arguments
    assert arguments.isascii()
    refused = parse_arguments(arguments, "f", {"type": "object"})
    assert isinstance(refused, ToolError)
    assert "lone surrogate" in refused.message


async def test_an_input_that_is_nested_too_deep_is_a_bad_call(
    models: ModelRegistry, server: ScriptedServer
) -> None:
    deep = "[" * 400 + "]" * 400
    block = f'{{"type": "tool_use", "id": "t", "name": "f", "input": {{"x": {deep}}}}}'
    server.script(sends(f'{{"type": "message", "content": [{block}]}}'.encode()))
    output = await ask(ANTHROPIC, models, server)
    refused = parse_arguments(output.tool_uses[0].arguments, "f", {"type": "object"})
    assert isinstance(refused, ToolError)
    assert "nested deeper" in refused.message


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({"seed": 1}, "seed"),
        ({"n": 2}, "n"),
        ({"frequency_penalty": 1}, "frequency_penalty"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
    ],
)
async def test_what_the_api_has_no_word_for_is_refused_before_anything_is_sent(
    models: ModelRegistry, server: ScriptedServer, parameters: dict[str, Any], name: str
) -> None:
    config = {"model": "anthropic/m", "prompt": "p", "base_url": server.url}
    with pytest.raises(UnsupportedParameter, match=f"no parameter '{name}'"):
        await models.check(ExperimentConfig.read({**config, "parameters": parameters}))
    assert server.bodies == []
    server.script(says("ok"))
    output = await ask(
        ANTHROPIC, models, server, parameters={**parameters, "max_tokens": 5}, drop_unsupported=True
    )
    assert output.warnings == (f"anthropic has no parameter '{name}'; it was left out",)
    assert name not in server.bodies[0]


async def test_content_that_has_no_form_is_refused_unsent(
    models: ModelRegistry, server: ScriptedServer
) -> None:
    message = {"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}
    with pytest.raises(ModelError, match="'input_audio'"):
        await ask(ANTHROPIC, models, server, messages=[message])
    assert server.bodies == []


async def test_a_prompt_that_is_too_long_is_a_full_context(
    models: ModelRegistry, server: ScriptedServer
) -> None:
    server.script(fails(400, "prompt is too long: 210000 tokens > 200000 maximum"))
    output = await ask(ANTHROPIC, models, server)
    assert (output.stop_reason, output.usage.total_tokens) == ("model_length", 0)


async def test_an_overloaded_server_is_tried_again(
    models: ModelRegistry, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def at_once(seconds: float) -> None:
        """Do not wait."""

    monkeypatch.setattr("sandbox_sdk.experiments.models.retries.anyio.sleep", at_once)
    server.script(fails(529, "Overloaded", type="overloaded_error"), says("ok"))
    assert (await ask(ANTHROPIC, models, server)).usage.requests == 2


async def test_no_key_names_three_ways_out() -> None:
    models = ModelRegistry(environ={})
    with pytest.raises(ModelAuthError) as caught:
        await models.check(ExperimentConfig.read({"model": "anthropic/claude", "prompt": "p"}))
    for fix in ("export ANTHROPIC_API_KEY=", '"base_url"', "sandbox-sdk models install smollm2"):
        assert fix in str(caught.value)


async def test_without_its_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "anthropic", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    models = ModelRegistry(environ={"ANTHROPIC_API_KEY": KEY})
    with pytest.raises(ModelNotFound, match=r'pip install "sandbox-sdk\[anthropic\]"'):
        await models.check(ExperimentConfig.read({"model": "anthropic/claude", "prompt": "p"}))
