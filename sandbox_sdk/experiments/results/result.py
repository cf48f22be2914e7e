"""What an experiment gave: values derived from its journal, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import attrs

from sandbox_sdk.experiments.budgets.cost import Cost
from sandbox_sdk.experiments.records.redaction import plain
from sandbox_sdk.experiments.usage import StopReason, TokenUsage
from sandbox_sdk.values import Artifact, AttemptState

Status = Literal["success", "error", "limit", "cancelled"]
"""How an experiment ended, in one word; derived from its attempt's state."""

STATUS: Mapping[AttemptState, Status] = {
    AttemptState.COMPLETED: "success",
    AttemptState.AGENT_ERROR: "error",
    AttemptState.TIMEOUT: "limit",
    AttemptState.OOM: "limit",
    AttemptState.LIMIT: "limit",
    AttemptState.POLICY_DENIED: "error",
    AttemptState.MODEL_ERROR: "error",
    AttemptState.INFRA_ERROR: "error",
    AttemptState.CANCELLED: "cancelled",
    AttemptState.BUDGET: "limit",
    AttemptState.LOST: "error",
}
"""The status of each attempt state; total."""


@attrs.frozen(kw_only=True)
class ToolError:
    """Why a tool call failed.

    Attributes:
        type: ``parsing``, ``unknown_tool``, ``timeout``, ``oom``, ``nonzero`` and so on.
        message: One sentence.
    """

    type: str
    message: str


@attrs.frozen(kw_only=True)
class ToolCall:
    """One use of a tool, as the model asked and the sandbox answered.

    Attributes:
        id: The model's id of the call, or one made up where it gave none.
        name: The tool.
        arguments: What it was called with; ``{"raw": text}`` where that was no valid JSON.
        result: The text the model saw.
        error: Why it failed, where it did.
        exit_code: The exit code, where a program exited.
        duration: Seconds.
        raw_bytes: Bytes of output before it was cut for the model.
        kept_bytes: Bytes of output that the model saw.
        artifact: SHA-256 of the whole output, where it was cut.
    """

    id: str
    name: str
    arguments: Mapping[str, Any]
    result: str = attrs.field(default="", repr=False)
    error: ToolError | None = None
    exit_code: int | None = None
    duration: float = 0.0
    raw_bytes: int = 0
    kept_bytes: int = 0
    artifact: str | None = None


@attrs.frozen(kw_only=True)
class Timings:
    """When and how long. Times are seconds since the epoch, durations seconds.

    Attributes:
        started_at: The attempt's start.
        completed_at: The attempt's end.
        total_time: From start to end, on a clock that never steps back.
        model_time: In model calls, without the waits between them.
        tool_time: In tool calls.
        retries_wait: Waiting between model calls that were tried again.
    """

    started_at: float
    completed_at: float
    total_time: float
    model_time: float = 0.0
    tool_time: float = 0.0
    retries_wait: float = 0.0

    @property
    def working_time(self) -> float:
        """The total without the waits for a provider that refused or failed."""
        return max(0.0, self.total_time - self.retries_wait)


@attrs.frozen(kw_only=True)
class ResourceUse:
    """What the sandbox used during the attempt. A figure that cannot be had is ``None``.

    Attributes:
        cpu_seconds: CPU time.
        memory_peak_bytes: The most memory since the sandbox started.
        source: What counted it.
    """

    cpu_seconds: float | None = None
    memory_peak_bytes: int | None = None
    source: str = ""


@attrs.frozen(kw_only=True)
class LimitHit:
    """The limit that ended an attempt.

    Attributes:
        type: A limit of the config by its name, ``context`` or ``content_filter`` of the model,
            a bound of the budget such as ``budget.tokens``, or a limit of the sandbox such as
            ``memory``.
        limit: Its value, where it is known.
        used: What was used of it, where it is known.
    """

    type: str
    limit: float | None = None
    used: float | None = None


@attrs.frozen(kw_only=True)
class Failure:
    """The error that ended an attempt.

    Attributes:
        type: The stable code of the error, for example ``model_rate_limited``.
        message: What happened, why, and what to do.
        retryable: Whether the same may succeed later.
        provider_status: The provider's HTTP status, where there is one.
        request_id: The provider's id of the request, where there is one.
    """

    type: str
    message: str
    retryable: bool = False
    provider_status: int | None = None
    request_id: str | None = None


@attrs.frozen(kw_only=True)
class Provenance:
    """What produced the result.

    Attributes:
        requested_model: The model as the config names it; ``None`` for code alone.
        provider: Which provider answered.
        response_model: The model as the provider names it.
        system_fingerprint: The provider's own word for its version, or a local file's SHA-256.
        mock: Whether the answers are scripted and no model was asked.
        replayed: Whether an answer was recorded before, so that its tokens and cost are not new.
        seed: The seed that was sent.
        sdk_version: The version of this SDK.
        sandbox_id: The sandbox it ran in.
        isolation: What was in force, proven from inside: level, runtime, walls.
    """

    requested_model: str | None = None
    provider: str | None = None
    response_model: str | None = None
    system_fingerprint: str | None = None
    mock: bool = False
    replayed: bool = False
    seed: int | None = None
    sdk_version: str = ""
    sandbox_id: str = ""
    isolation: Mapping[str, Any] | None = attrs.field(default=None, repr=False)


@attrs.frozen(kw_only=True, repr=False)
class ExperimentResult:
    """The outcome of one experiment.

    Attributes:
        id: The run's id.
        name: The user's name for it.
        config_digest: SHA-256 of the config with all defaults filled in.
        status: How it ended, in one word.
        state: How its attempt ended, exactly.
        output: The model's last answer, or what the code wrote.
        outputs: Every choice of the last answer; more than one where ``n`` asked for it.
        stop_reason: Why the model ended its last answer.
        finish_reason: The same in the provider's own word.
        messages: The whole conversation.
        tool_calls: Every tool call in order.
        usage: Tokens of all model calls.
        cost: What its answers cost; ``None`` where that is unknown, never 0.
        timings: When and how long.
        artifacts: Files collected from the workspace and whole outputs of tools.
        resource_usage: What the sandbox used.
        limit: The limit that ended it, where one did.
        error: The error that ended it, where one did.
        warnings: What a reader should know, each once.
        provenance: What produced it.
    """

    id: str
    name: str | None
    config_digest: str
    status: Status
    state: AttemptState
    output: str = ""
    outputs: tuple[str, ...] = ()
    stop_reason: StopReason | None = None
    finish_reason: str | None = None
    messages: tuple[Mapping[str, Any], ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    usage: TokenUsage
    cost: Cost | None = None
    timings: Timings
    artifacts: tuple[Artifact, ...] = ()
    resource_usage: ResourceUse | None = None
    limit: LimitHit | None = None
    error: Failure | None = None
    warnings: tuple[str, ...] = ()
    provenance: Provenance = Provenance()

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON."""
        data: dict[str, Any] = plain(attrs.asdict(self))
        data["usage"]["total_tokens"] = self.usage.total_tokens
        if self.cost is not None:
            data["cost"]["total"] = float(self.cost.total)
        data["timings"]["working_time"] = self.timings.working_time
        return data

    def __repr__(self) -> str:
        facts = [f"{self.id} {self.status}"]
        if self.status != "success":
            facts[0] += f" ({self.state.value})"
        if self.provenance.requested_model:
            facts.append(self.provenance.requested_model + " (a mock)" * self.provenance.mock)
            facts.append(f"{self.usage.total_tokens} tokens")
        if self.tool_calls:
            facts.append(f"{len(self.tool_calls)} tool calls")
        facts.append(f"{self.timings.total_time:.2f} s")
        said = self.error.message if self.error else self.output
        said = said if len(said) <= 200 else f"{said[:197]}..."
        return f"<ExperimentResult {', '.join(facts)}: {said!r}>"
