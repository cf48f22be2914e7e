"""The result of a run, derived from its plan and its journal alone.

What was returned once can so be rebuilt, by anyone who has the run's folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs

from sandbox_sdk.experiments.budgets.cost import Cost, total_cost
from sandbox_sdk.experiments.records.events import Event
from sandbox_sdk.experiments.results.result import (
    STATUS,
    ExperimentResult,
    Failure,
    LimitHit,
    Provenance,
    ResourceUse,
    Timings,
    ToolCall,
    ToolError,
)
from sandbox_sdk.experiments.usage import TokenUsage
from sandbox_sdk.values import Artifact, AttemptState

LOST = Failure(
    type="lost",
    message="the process that ran it died before the attempt ended; run it again",
    retryable=True,
)
"""The error of an attempt that nobody finished."""


Lookup = Callable[[str], Event]
"""Finds the event that stored a message or a sandbox's standing for all attempts, by digest."""


@attrs.frozen(kw_only=True)
class TrialFacts:
    """What the plan says of a trial.

    Attributes:
        name: The user's name for the run.
        config_digest: SHA-256 of the experiment's config.
        model: The model that is asked.
        sdk: The version of the SDK.
        sandbox: The sandbox that the run was planned for, if it is one.
    """

    name: str | None
    config_digest: str
    model: str | None
    sdk: str
    sandbox: str | None


def derive_result(
    facts: TrialFacts, events: Iterable[Event], lookup: Lookup | None = None
) -> ExperimentResult | None:
    """Return what the last attempt of a trial gave.

    Args:
        facts: What the plan says of the trial.
        events: The trial's events, from the start of an attempt on.
        lookup: Finds what another attempt stored.

    Returns:
        The result; its state is ``lost`` if the attempt never ended. ``None`` if none started.
    """
    fold: _Fold | None = None
    for event in events:
        if event.type == "attempt.started":
            fold = _Fold(facts, event, lookup)
        elif fold is not None:
            fold.take(event)
    return fold.result() if fold else None


# Any: an event's data is JSON that this process, or one before it, wrote through ``Recorder``.
class _Fold:
    """Takes one event of an attempt after the other and adds them up."""

    def __init__(self, facts: TrialFacts, started: Event, lookup: Lookup | None) -> None:
        self._facts = facts
        self._started = self._last = started
        self._finished: Event | None = None
        self._lookup = lookup
        self._known: dict[str, Mapping[str, Any]] = {}
        self._messages: list[Mapping[str, Any]] = []
        self._calls: dict[int, ToolCall] = {}
        self._artifacts: dict[tuple[str, str], Artifact] = {}
        self._warnings: dict[str, None] = {}
        self._usage = TokenUsage()
        self._costs: list[Cost | None] = []
        self._asked: set[int] = set()  # calls that were sent and have not ended
        self._unanswered = 0  # sends that may have been billed
        self._model_time = self._retries_wait = 0.0
        self._answer: Mapping[str, Any] = {}
        self._output: str | None = None
        self._provenance = Provenance(
            requested_model=facts.model,
            provider=started.data["provider"],
            seed=started.data["seed"],
            mock=started.data["provider"] == "mock",
            sdk_version=facts.sdk,
            sandbox_id=started.data["sandbox"] or "",
        )

    def take(self, event: Event) -> None:
        self._last = event
        data = event.data
        if "role" in data:
            return  # a call of a scorer, which is no part of the attempt
        match event.type:
            case "sandbox.ready":
                told = data if "isolation" in data else self._stored(data["digest"])
                self._provenance = attrs.evolve(self._provenance, isolation=told["isolation"])
            case "message.added":
                identity = data["digest"]
                if identity not in self._known:
                    told = data if "message" in data else self._stored(identity)
                    self._known[identity] = told["message"]
                self._messages.append(self._known[identity])
            case "model.requested":
                self._asked.add(data["call"])
            case "model.retried":
                self._retries_wait += data["wait"]
                self._unanswered += data.get("billed") is None
            case "model.failed":
                self._asked.discard(data["call"])
                self._unanswered += data.get("billed") is None
            case "model.responded":
                self._take_answer(data)
            case "tool.requested":
                self._calls[data["index"]] = ToolCall(
                    id=data["id"],
                    name=data["name"],
                    arguments=data["arguments"],
                    error=ToolError(type="cancelled", message="it did not end"),
                )
            case "tool.finished":
                self._take_tool(data)
            case "code.finished":
                self._output = data["text"]
                self._keep([data["artifact"]] if data["artifact"] else [])
            case "artifacts.collected":
                self._keep(data["artifacts"])
                skipped: Mapping[str, str] = data["skipped"]
                for path, reason in skipped.items():
                    self._warnings[f"the file {path!r} was not collected: {reason}"] = None
            case "warning":
                self._warnings[data["text"]] = None
            case "attempt.finished":
                self._finished = event
            case _:
                pass  # told for people, or by a newer version

    def result(self) -> ExperimentResult:
        started, last = self._started, self._finished or self._last
        end: Mapping[str, Any] = self._finished.data if self._finished else {}
        state = AttemptState(end.get("state", AttemptState.LOST))
        texts: list[str] = self._answer.get("texts", [])
        output = self._output if self._output is not None else (texts[0] if texts else "")
        return ExperimentResult(
            id=started.run,
            name=self._facts.name,
            config_digest=self._facts.config_digest,
            status=STATUS[state],
            state=state,
            output=output,
            outputs=tuple(texts) or ((output,) if self._output is not None else ()),
            stop_reason=self._answer.get("stop_reason"),
            finish_reason=self._answer.get("finish_reason"),
            messages=tuple(self._messages),
            tool_calls=tuple(self._calls[index] for index in sorted(self._calls)),
            usage=self._usage,
            cost=total_cost(self._costs),
            timings=Timings(
                started_at=started.time,
                completed_at=last.time,
                total_time=end.get("total_time", last.monotonic - started.monotonic),
                model_time=self._model_time,
                tool_time=sum(call.duration for call in self._calls.values()),
                retries_wait=self._retries_wait,
            ),
            artifacts=tuple(self._artifacts.values()),
            resource_usage=_value(ResourceUse, end.get("resource_usage")),
            limit=_value(LimitHit, end.get("limit")),
            error=_value(Failure, end.get("error")) if self._finished else LOST,
            warnings=(*self._warnings, *self._possibly_billed()),
            provenance=self._provenance,
        )

    def _stored(self, identity: str) -> Mapping[str, Any]:
        if self._lookup is None:
            raise AssertionError("unreachable: nothing else stores for a run of one attempt")
        return self._lookup(identity).data

    def _possibly_billed(self) -> list[str]:
        sends = self._unanswered + len(self._asked)
        if not sends:
            return []
        said = "model calls were sent and got no answer; they may have been billed, and are in no"
        return [f"{sends} {said} count of tokens or cost"]

    def _take_answer(self, data: Mapping[str, Any]) -> None:
        self._answer = data
        self._asked.discard(data["call"])
        self._usage += TokenUsage(**data["usage"])
        self._costs.append(Cost.from_json(data["cost"]) if data.get("cost") else None)
        self._model_time += data["duration"]
        self._warnings |= dict.fromkeys(data["warnings"])
        self._provenance = attrs.evolve(
            self._provenance,
            response_model=data["response_model"],
            system_fingerprint=data["system_fingerprint"],
            mock=data["mock"],
            replayed=self._provenance.replayed or data.get("replayed", False),
        )

    def _take_tool(self, data: Mapping[str, Any]) -> None:
        asked = self._calls[data["index"]]
        self._keep([data["artifact"]] if data["artifact"] else [])
        self._calls[data["index"]] = attrs.evolve(
            asked,
            result=data["result"],
            error=_value(ToolError, data["error"]),
            exit_code=data["exit_code"],
            duration=data["duration"],
            raw_bytes=data["raw_bytes"],
            kept_bytes=data["kept_bytes"],
            artifact=data["artifact"]["sha256"] if data["artifact"] else None,
        )

    def _keep(self, artifacts: Iterable[Mapping[str, Any]]) -> None:
        for fields in artifacts:
            artifact = Artifact(**fields)
            self._artifacts[artifact.path, artifact.sha256] = artifact


def _value(cls: type[Any], fields: Mapping[str, Any] | None) -> Any:
    return None if fields is None else cls(**fields)
