"""Which provider answers for a model's name, and the providers a client holds."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import anyio.to_thread

from sandbox_sdk.errors import ConfigError, ModelNotFound
from sandbox_sdk.experiments.budgets.budget import unpriced
from sandbox_sdk.experiments.budgets.prices import PricedModel, Prices
from sandbox_sdk.experiments.budgets.public_prices import load_public_prices
from sandbox_sdk.experiments.cassette import Cassette
from sandbox_sdk.experiments.config import ExperimentConfig
from sandbox_sdk.experiments.models.anthropic import AnthropicDialect
from sandbox_sdk.experiments.models.base import ModelProvider, ModelRequest
from sandbox_sdk.experiments.models.http import HttpProvider
from sandbox_sdk.experiments.models.local import LocalProvider
from sandbox_sdk.experiments.models.mock import MockProvider
from sandbox_sdk.experiments.models.openai import OpenAIDialect
from sandbox_sdk.experiments.records.redaction import Redactor
from sandbox_sdk.experiments.tools.tool_kinds import programs_of
from sandbox_sdk.parse import fault, suggestion
from sandbox_sdk.values import ModelHost

DEFAULT_PROVIDER = "openai"
"""Who answers for a bare name such as ``gpt-5.6-terra``."""

_WITH_ADDRESS = (DEFAULT_PROVIDER, "anthropic")


class ModelRegistry:
    """The model providers of one client. Close it with the client.

    Args:
        host: Starts local models in a sandbox; without it there are none.
        models_dir: Where ``sandbox-sdk models install`` keeps model files.
        environ: Where keys and addresses are looked up; by default the process's environment.
        providers: More providers; one of a name that exists takes its place.
    """

    def __init__(
        self,
        host: ModelHost | None = None,
        *,
        models_dir: Path | None = None,
        environ: Mapping[str, str] | None = None,
        providers: Iterable[ModelProvider] = (),
    ) -> None:
        self.redactor = Redactor()
        self._environ = os.environ if environ is None else environ
        own: tuple[ModelProvider, ...] = (
            HttpProvider(OpenAIDialect(), environ=environ, redactor=self.redactor),
            HttpProvider(AnthropicDialect(), environ=environ, redactor=self.redactor),
            LocalProvider(host, models_dir=models_dir, environ=environ),
            MockProvider(),
        )
        self._cassettes: dict[tuple[str, str], Cassette] = {}
        self._providers = {provider.name: provider for provider in (*own, *providers)}

    def request(self, config: ExperimentConfig) -> tuple[ModelProvider, ModelRequest]:
        """Return who answers for the config's model, and its call without messages.

        Raises:
            ModelNotFound: There is no such provider.
            ConfigError: The provider takes no ``base_url``.
        """
        name, model = self._split(config)
        provider = self._providers[name]
        if name not in _WITH_ADDRESS and (config.base_url or config.api_key_env):
            field = "base_url" if config.base_url else "api_key_env"
            line = f"experiment.{field}: does not go with {name}/{model}"
            raise ConfigError(line, faults=(line,))
        parameters = dict(config.parameters)
        if config.sampling_seed is not None:
            parameters["seed"] = config.sampling_seed
        return provider, ModelRequest(
            model=model,
            parameters=parameters,
            base_url=config.base_url,
            api_key_env=config.api_key_env,
            drop_unsupported=config.drop_unsupported,
            attempt_timeout=config.retries.attempt_timeout,
        )

    def priced(self, config: ExperimentConfig) -> PricedModel:
        """Return whose price the config's model has.

        Raises:
            ModelNotFound: There is no such provider.
        """
        name, model = self._split(config)
        own = bool(config.base_url or self._environ.get(f"{name.upper()}_BASE_URL"))
        return PricedModel(provider=name, model=model, own_server=own)

    def cassette(self, config: ExperimentConfig) -> Cassette | None:
        """Return the cassette that the config's calls are answered from or recorded on."""
        if config.cache == "off" or config.cassette is None:
            return None
        known = (config.cassette, config.cache)
        if known not in self._cassettes:
            path = Path(config.cassette).expanduser()
            self._cassettes[known] = Cassette(path, config.cache, self.redactor)
        return self._cassettes[known]

    async def check(self, config: ExperimentConfig) -> None:
        """Go on if the config's model can be called as far as is known without calling it.

        Raises:
            ConfigError: The config cannot mean anything to the provider, or limits the cost of a
                model whose price is unknown.
            ModelError: There is no key, no such model, or nothing at its address.
        """
        if config.model is not None:
            provider, request = self.request(config)
            if config.tools and not provider.supports_tools and not programs_of(config.tools):
                said = "cannot be asked for by this model, which writes code blocks; add python"
                raise fault("experiment.tools", said)
            if self.priced(config).public:
                await anyio.to_thread.run_sync(load_public_prices)
            if config.limits.cost is not None and not Prices(config.prices).knows(
                priced := self.priced(config)
            ):
                raise fault("experiment.limits.cost", unpriced(priced))
            if config.cache != "replay":
                await provider.check(request)
            else:
                # No model is asked, but what was recorded without the key is found without it.
                variable = config.api_key_env or f"{provider.name.upper()}_API_KEY"
                self.redactor.add(self._environ.get(variable, ""))

    async def aclose(self) -> None:
        """Release every provider's connections and processes."""
        for provider in self._providers.values():
            await provider.aclose()

    def _split(self, config: ExperimentConfig) -> tuple[str, str]:
        asked = config.model or ""
        ends = [asked.index(mark) for mark in "/:" if mark in asked]
        head, tail = (asked[: min(ends)], asked[min(ends) + 1 :]) if ends else ("", asked)
        if head in self._providers and tail:
            return head, tail
        # Servers have models such as "Qwen/Qwen3-8B" or "llama3:8b", so with an address of its
        # own the whole name is the server's.
        if config.base_url or not head or asked.startswith("ft:"):
            return DEFAULT_PROVIDER, asked
        raise ModelNotFound(
            f"there is no model provider {head!r}{suggestion(head, self._providers)}; write "
            f'"openai/{asked}" if an OpenAI-compatible server has a model of this name',
            model=asked,
        )
