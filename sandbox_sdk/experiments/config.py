"""What an experiment is: the config a user writes as a dict, read strictly into values."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Literal

import attrs

from sandbox_sdk.experiments.budgets.cost import Price
from sandbox_sdk.experiments.budgets.prices import prices_json
from sandbox_sdk.experiments.fields import read_fields
from sandbox_sdk.experiments.records.digests import digest
from sandbox_sdk.experiments.records.redaction import REDACTED, looks_secret, plain
from sandbox_sdk.experiments.schema import FIELDS, HINTS, contradictions
from sandbox_sdk.experiments.tools.tool_kinds import ToolName
from sandbox_sdk.parse import Faults
from sandbox_sdk.values import KIB

CacheMode = Literal["off", "use", "record", "replay"]
"""``use`` answers from the cassette what it holds and records the rest; ``record`` asks and records
always; ``replay`` never asks."""

ToolFormat = Literal["auto", "function", "code_block"]
"""How a model asks for a tool: by OpenAI's ``tools``, or by a code block in its answer."""


def _names(mapping: Mapping[str, object]) -> str:
    return repr(sorted(mapping))


def _short(text: object) -> str:
    return repr(text) if len(str(text)) <= 60 else f"{str(text)[:57]!r}..."


@attrs.frozen(kw_only=True)
class Limits:
    """Bounds of one attempt. ``None`` is no bound.

    Attributes:
        turns: Model calls.
        messages: Messages of the conversation, the first ones included.
        tokens: Input and output tokens of all model calls together.
        cost: US dollars of all model calls together; the model needs a price.
        time: Seconds of the whole attempt, waits included.
        working_time: The same without waits for a provider that refused or failed, and for room in
            a budget.
        tool_time: Seconds of all tool calls together.
        tool_calls: Tool calls.
        bad_calls: Tool calls one after the other that cannot be read or are of no tool.
        tool_timeout: Seconds of one tool call; what it wrote by then goes to the model.
        tool_output: Bytes of one tool's output that the model sees; the whole is an artifact.
    """

    turns: int = 30
    messages: int | None = None
    tokens: int | None = None
    cost: float | None = None
    time: float | None = 3600.0
    working_time: float | None = None
    tool_time: float | None = None
    tool_calls: int | None = 200
    bad_calls: int | None = 10
    tool_timeout: float = 30.0
    tool_output: int = 16 * KIB


@attrs.frozen(kw_only=True)
class Retries:
    """How often and how long one model call is tried.

    Attributes:
        max_retries: Sends after the first.
        timeout: Seconds of all sends and the waits between them.
        attempt_timeout: Seconds of one send, to the complete answer.
    """

    max_retries: int = 5
    timeout: float = 900.0
    attempt_timeout: float = 300.0


# Any: readers return each field's own type, which a table cannot say.
@attrs.frozen(kw_only=True)
class ExperimentConfig:
    """One experiment: a model with a prompt, or code alone.

    Attributes:
        name: The user's name for it.
        description: The user's own words.
        tags: The user's own words, for sorting.
        metadata: Whatever the user wants kept with it.
        model: ``provider/model``, or a bare name for an OpenAI-compatible server.
        base_url: The address of an OpenAI-compatible server.
        api_key_env: The environment variable that holds the key; never the key.
        prompt: One user message.
        messages: A conversation so far, in OpenAI's form.
        code: A Python program that is run without any model.
        system: The system message put first.
        parameters: Sampling parameters by OpenAI's names; only those given are sent.
        tools: What the model may use: ``python``, ``bash``, ``files``, and functions.
        tool_format: How it asks for them; ``auto`` is what suits the provider.
        single_turn: End after the first answer's tools ran; their outcome is the attempt's.
        files: Path in the workspace -> content, written first.
        setup: A command run in the workspace before the model or code.
        artifacts: Glob patterns of workspace files to keep.
        limits: Bounds of the attempt.
        retries: How often a model call is tried.
        drop_unsupported: Leave out, with a warning, parameters the model refuses.
        seed: Seed of the model's sampling.
        prices: Model -> what it costs, before public prices.
        cache: Whether answers come from a cassette, are recorded on one, or both.
        cassette: The cassette's path.
    """

    name: str | None = None
    description: str | None = None
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = attrs.field(factory=dict[str, Any], repr=_names)
    model: str | None = None
    base_url: str | None = None
    api_key_env: str | None = None
    prompt: str | None = attrs.field(default=None, repr=_short)
    messages: tuple[Mapping[str, Any], ...] = attrs.field(default=(), repr=_short)
    code: str | None = attrs.field(default=None, repr=_short)
    system: str | None = attrs.field(default=None, repr=_short)
    parameters: Mapping[str, Any] = attrs.field(factory=dict[str, Any], repr=_names)
    tools: tuple[ToolName, ...] = ()
    tool_format: ToolFormat = "auto"
    single_turn: bool = False
    files: Mapping[str, str | bytes] = attrs.field(factory=dict[str, str | bytes], repr=_names)
    setup: str | None = None
    artifacts: tuple[str, ...] = ()
    limits: Limits = Limits()
    retries: Retries = Retries()
    drop_unsupported: bool = False
    seed: int | None = None
    prices: Mapping[str, Price] = attrs.field(factory=dict[str, Price], repr=_names)
    cache: CacheMode = "off"
    cassette: str | None = None

    @classmethod
    def read(cls, config: Mapping[str, object]) -> ExperimentConfig:
        """Return the experiment that a dict describes.

        Raises:
            ConfigError: It describes none; all faults at once, each with its path.
        """
        found: dict[str, Any] = read_fields(config, "experiment", FIELDS, HINTS)
        faults = Faults()
        for path, what in contradictions(found):
            faults.add(path, what)
        faults.check()
        found["limits"] = Limits(**found.get("limits", {}))
        found["retries"] = Retries(**found.get("retries", {}))
        return cls(**found)

    def to_json(self) -> dict[str, Any]:
        """Return the config with every default filled in, as JSON; secret headers hidden."""
        data = attrs.asdict(self)
        data["files"] = {path: _content_to_json(item) for path, item in self.files.items()}
        data["prices"] = prices_json(self.prices)
        if headers := self.parameters.get("extra_headers"):
            hidden = {k: REDACTED if looks_secret(k) else v for k, v in headers.items()}
            data["parameters"] = {**data["parameters"], "extra_headers": hidden}
        filled: dict[str, Any] = plain(data)
        return filled

    @property
    def digest(self) -> str:
        """The SHA-256 of the config's canonical JSON."""
        return digest(self.to_json())

    @property
    def sampling_seed(self) -> int | None:
        """The seed that is sent to the model."""
        seed: int | None = self.parameters.get("seed", self.seed)
        return seed

    @property
    def secrets(self) -> tuple[str, ...]:
        """Header values that must not be kept or shown."""
        headers: Mapping[str, str] = self.parameters.get("extra_headers", {})
        return tuple(value for name, value in headers.items() if looks_secret(name))


def _content_to_json(content: str | bytes) -> Any:
    if isinstance(content, str):
        return content
    return {"base64": base64.b64encode(content).decode()}
