"""An experiment's config: what users write is read strictly, and all faults come at once."""

from __future__ import annotations

import contextlib
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_sdk.errors import ConfigError
from sandbox_sdk.experiments.batches.trial_key import condition_digest, trial_key
from sandbox_sdk.experiments.config import ExperimentConfig, Limits

DOCUMENTED = {
    "model": "gpt-3.5-turbo",
    "prompt": "Test prompt",
    "parameters": {"temperature": 0.7, "max_tokens": 100},
}


def faults_of(config: Any) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        ExperimentConfig.read(config)
    return caught.value.faults


def test_the_documented_config_is_read_as_written() -> None:
    config = ExperimentConfig.read(DOCUMENTED)
    assert config.model == "gpt-3.5-turbo"
    assert config.prompt == "Test prompt"
    assert config.parameters == {"temperature": 0.7, "max_tokens": 100}
    assert config.limits == Limits()


def test_all_faults_come_at_once_each_with_its_path() -> None:
    faults = faults_of(
        {
            "model": "m",
            "prompt": "p",
            "parameters": {"temprature": 1, "top_p": "0.7", "max_tokens": True},
            "limits": {"turns": 0, "time": math.nan},
            "tols": [],
        }
    )
    assert faults == (
        'experiment.parameters.temprature: unknown key; did you mean "temperature"?',
        "experiment.parameters.top_p: must be a number, not '0.7'",
        "experiment.parameters.max_tokens: must be a whole number, not True",
        "experiment.limits.turns: must be from 1 to 9007199254740992, not 0",
        "experiment.limits.time: must be above 0 and at most 1e+08, not nan",
        'experiment.tols: unknown key; did you mean "tools"?',
    )


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"parameters": {"temperature": "0.7"}}, "parameters.temperature"),
        ({"parameters": {"temperature": True}}, "parameters.temperature"),
        ({"parameters": {"temperature": math.nan}}, "parameters.temperature"),
        ({"parameters": {"temperature": math.inf}}, "parameters.temperature"),
        ({"parameters": {"max_tokens": 1.0}}, "parameters.max_tokens"),
        ({"parameters": {"max_tokens": 0}}, "parameters.max_tokens"),
        ({"parameters": {"extra_body": {"a": math.nan}}}, "parameters.extra_body.a"),
        ({"parameters": {"extra_body": {"messages": []}}}, "parameters.extra_body.messages"),
        ({"parameters": []}, "parameters"),
        ({"tools": ["pyton"]}, "tools[0]"),
        ({"tools": "python"}, "tools"),
        ({"tool_format": "function"}, "tool_format"),
        ({"single_turn": True}, "single_turn"),
        ({"files": {"/etc/passwd": "x"}}, "files./etc/passwd"),
        ({"files": {"a/../../b": "x"}}, "files.a/../../b"),
        ({"files": {"a\0b": "x"}}, "files.a\0b"),
        ({"files": {"a": 3}}, "files.a"),
        ({"artifacts": ["../*"]}, "artifacts[0]"),
        ({"setup": " "}, "setup"),
        ({"prompt": "\ud800"}, "prompt"),
        ({"name": "two\nlines"}, "name"),
        ({"seed": 1.5}, "seed"),
        ({"base_url": "127.0.0.1:8000"}, "base_url"),
        ({"base_url": "http://me:pass@host/v1"}, "base_url"),
        ({"base_url": "http://host/v1?key=abc"}, "base_url"),
        ({"api_key_env": "sk-not-a-name"}, "api_key_env"),
        ({"retries": {"max_retries": -1}}, "retries.max_retries"),
        ({"limits": {"tool_output": "12 elephants"}}, "limits.tool_output"),
        ({"seed": 1, "parameters": {"seed": 2}}, "seed"),
        ({"tools": ["bash"], "parameters": {"n": 2}}, "parameters.n"),
        ({"messages": [{"role": "user", "content": "x"}]}, "prompt"),
        ({"code": "print(1)"}, "model"),
    ],
)
def test_nonsense_is_refused_with_its_path(change: dict[str, Any], path: str) -> None:
    faults = faults_of({**DOCUMENTED, **change})
    assert faults[0].startswith(f"experiment.{path}: ")


@pytest.mark.parametrize("wrong", [None, 3, "x", [DOCUMENTED], {1: 2}])
def test_what_is_no_mapping_is_refused(wrong: Any) -> None:
    assert faults_of(wrong)[0].startswith("experiment: ")


@pytest.mark.parametrize("name", ["api_key", "API_KEY", "token", "password"])
def test_a_key_in_the_config_is_refused_without_showing_it(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ExperimentConfig.read({**DOCUMENTED, name: "sk-canary-123456"})
    assert "api_key_env" in str(caught.value)
    assert "canary" not in str(caught.value)


def test_an_authorization_header_is_refused_and_other_secret_headers_are_never_recorded() -> None:
    bad = {"parameters": {"extra_headers": {"Authorization": "Bearer sk-canary-123456"}}}
    with pytest.raises(ConfigError, match="api_key_env") as caught:
        ExperimentConfig.read({**DOCUMENTED, **bad})
    assert "canary" not in str(caught.value)
    headers = {"X-Gateway-Key": "canary-123456", "X-Team": "blue"}
    config = ExperimentConfig.read({**DOCUMENTED, "parameters": {"extra_headers": headers}})
    assert config.secrets == ("canary-123456",)
    assert "canary" not in json.dumps(config.to_json())
    assert "canary" not in repr(config)


def test_code_alone_is_an_experiment_without_a_model() -> None:
    config = ExperimentConfig.read({"code": "print(1)", "artifacts": "*.txt"})
    assert config.model is None
    assert config.artifacts == ("*.txt",)


def test_a_sampling_parameter_at_the_top_is_sent_to_its_place() -> None:
    assert faults_of({**DOCUMENTED, "temperature": 1}) == (
        'experiment.temperature: belongs in "parameters": {"temperature": ...}',
    )


def test_a_prompt_of_10_mb_is_read_and_one_of_20_mb_is_refused_with_a_hint() -> None:
    config = ExperimentConfig.read({**DOCUMENTED, "prompt": "x" * 10_000_000})
    assert len(config.prompt or "") == 10_000_000
    assert len(repr(config)) < 2000
    (fault,) = faults_of({**DOCUMENTED, "prompt": "x" * 20_000_000})
    assert '"files"' in fault


def test_the_digest_covers_defaults_and_the_trial_key_only_what_decides_the_outcome() -> None:
    plain = ExperimentConfig.read(DOCUMENTED)
    named = ExperimentConfig.read({**DOCUMENTED, "name": "a", "tags": ["b"]})
    spelt_out = ExperimentConfig.read({**DOCUMENTED, "limits": {"turns": 30}})
    warmer = ExperimentConfig.read({**DOCUMENTED, "parameters": {"temperature": 1}})
    assert plain.digest == spelt_out.digest != named.digest
    keys = [
        trial_key(config, condition_digest(config, None), "1", 1, blocks=False)
        for config in (plain, named, warmer)
    ]
    assert keys[0] == keys[1] != keys[2]


def test_later_changes_to_the_callers_dict_do_not_reach_the_config() -> None:
    written: dict[str, Any] = {**DOCUMENTED, "metadata": {"list": [1]}}
    config = ExperimentConfig.read(written)
    written["metadata"]["list"].append(2)
    assert config.metadata == {"list": [1]}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3)
    ),
    max_leaves=8,
)
FIELD_NAMES = st.sampled_from(
    ["model", "prompt", "messages", "code", "parameters", "limits", "files", "tools", "artifacts"]
)


@given(st.dictionaries(FIELD_NAMES | st.text(max_size=5), json_values, max_size=5))
def test_whatever_is_written_gives_a_config_or_a_config_error(written: dict[str, Any]) -> None:
    with contextlib.suppress(ConfigError):
        json.dumps(ExperimentConfig.read(written).to_json(), allow_nan=False)


def test_many_unknown_keys_are_counted() -> None:
    """A mapping of another kind is refused at once, with a message that can be read."""
    faults = faults_of({"z" * 10_000_000: 1} | {f"key{number}": 1 for number in range(50_000)})
    assert len(faults) < 30
    assert "experiment: 49981 more unknown keys" in faults
