"""The APIs that providers over HTTP speak, so that one contract is tested with each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anthropic
import anthropic_server
import attrs
import openai
import openai_server
from openai_server import Handler, ScriptedServer

from sandbox_sdk.errors import ModelError
from sandbox_sdk.experiments.config import ExperimentConfig
from sandbox_sdk.experiments.models.base import ModelOutput
from sandbox_sdk.experiments.models.registry import ModelRegistry
from sandbox_sdk.experiments.models.retries import generate

LOADED = (anthropic, openai)
"""Imported here, so that no test's own time is spent on it."""

KEY = "sk-canary-0123456789abcdef"


@attrs.frozen(kw_only=True)
class Api:
    """How a scripted server speaks one API.

    Attributes:
        name: The provider.
        says: Answers with a text and tool calls.
        fails: Answers with an error.
    """

    name: str
    says: Callable[..., Handler]
    fails: Callable[..., Handler]

    @property
    def model(self) -> str:
        """A model's name in a config."""
        return f"{self.name}/m"

    def variable(self, what: str) -> str:
        """The provider's environment variable."""
        return f"{self.name.upper()}_{what}"


APIS = (
    Api(
        name="openai",
        says=openai_server.says,
        fails=openai_server.fails,
    ),
    Api(
        name="anthropic",
        says=anthropic_server.says,
        fails=anthropic_server.fails,
    ),
)


async def ask(
    api: Api, models: ModelRegistry, server: ScriptedServer, **config: Any
) -> ModelOutput:
    """Call a model as an experiment does."""
    whole = {"model": api.model, "base_url": server.url, "api_key_env": "MY_KEY", **config}
    if "messages" not in whole:
        whole["prompt"] = "hi"
    experiment = ExperimentConfig.read(whole)
    provider, request = models.request(experiment)
    messages = experiment.messages or ({"role": "user", "content": "hi"},)
    request = attrs.evolve(request, messages=messages)

    async def ignore(error: ModelError, wait: float, sends: int) -> None:
        """Nothing to record."""

    return await generate(provider, request, experiment.retries, ignore)
