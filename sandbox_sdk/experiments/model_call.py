"""One call of an attempt's model: reserved, recorded, sent, tried again, settled, recorded.

The request is durable before it is sent, and the answer before it is used.
"""

from __future__ import annotations

import math
import time
from typing import Any

import anyio
import attrs

from sandbox_sdk.errors import (
    ModelAuthError,
    ModelError,
    ModelNotFound,
    PolicyDenied,
    ReplayMiss,
    UnsupportedParameter,
)
from sandbox_sdk.experiments.allowance import Allowance
from sandbox_sdk.experiments.batches.paid import PaidAnswers
from sandbox_sdk.experiments.budgets.spending import Charge, OutOfBudget, Spending
from sandbox_sdk.experiments.cassette import Cassette
from sandbox_sdk.experiments.config import Retries
from sandbox_sdk.experiments.models import retries
from sandbox_sdk.experiments.models.base import ModelOutput, ModelProvider, ModelRequest, ToolUse
from sandbox_sdk.experiments.records.digests import digest
from sandbox_sdk.experiments.records.recorder import Recorder
from sandbox_sdk.experiments.results.outcome import Outcome, Stopped, failed
from sandbox_sdk.values import AttemptState

_WRONG_CONFIG = (ModelAuthError, ModelNotFound, ReplayMiss, UnsupportedParameter)
# What no retry mends, because the config asks for it.


class ModelCaller:
    """Makes the calls of one conversation, one after the other.

    Args:
        provider: Who answers.
        policy: How often a call is tried.
        recorder: Notes what happens.
        allowance: What the attempt may still use.
        spending: Reserves and settles what calls cost.
        cassette: Where answers may come from, and are recorded.
        past: Answers that were bought by an earlier attempt of the same trial.
        role: What the calls are for, such as ``grader``, where they are not the attempt's own: they
            are journalled with it, and in no count of the attempt.
        key: With a role, what the answer is known by whichever trial asks.
    """

    def __init__(
        self,
        provider: ModelProvider,
        policy: Retries,
        recorder: Recorder,
        allowance: Allowance,
        spending: Spending,
        cassette: Cassette | None = None,
        *,
        past: PaidAnswers | None = None,
        role: str | None = None,
        key: str | None = None,
    ) -> None:
        self._provider = provider
        self._policy = policy
        self._recorder = recorder
        self._allowance = allowance
        self._spending = spending
        self._cassette = cassette
        self._past = past
        self._shared = key is not None
        self._trial = recorder.trial if role is None else f"{role}/{key or recorder.trial}"
        told = {"role": role, "key": key}
        self._role = {name: value for name, value in told.items() if value is not None}

    async def ask(self, request: ModelRequest) -> ModelOutput:
        """Return the model's answer.

        Raises:
            Stopped: A limit or budget, or a failure of the model, ends the attempt.
            StateError: The journal or the cassette cannot be read or written.
        """
        identity = digest([request.model, request.messages, request.parameters, request.tools])
        known = await self._paid(request, identity)
        if known is None:
            known = await self._recall(request, identity)
        return known if known is not None else await self._buy(request, identity)

    async def _paid(self, request: ModelRequest, identity: str) -> ModelOutput | None:
        """Return the answer that an earlier attempt bought: it is not bought again."""
        if self._past is None:
            return None
        paid = await self._past.answer(request.call, identity, self._recorder)
        if paid is None:
            return None
        charge = self._spending.replayed(paid.output, at=paid.at)
        self._note_answer(request, identity, paid.output, charge, paid.duration, replayed=True)
        return paid.output

    async def _recall(self, request: ModelRequest, identity: str) -> ModelOutput | None:
        """Return the cassette's answer to a call: nothing is sent, and nothing spent."""
        if self._cassette is None:
            return None
        try:
            found = await self._cassette.find(
                self._provider.name, self._filed(request), self._trial
            )
        except ReplayMiss as miss:
            raise Stopped(_model_failure(miss, first=request.call == 1)) from None
        if found is None:
            return None
        output = _with_ids(found.output, request.call)
        charge = self._spending.replayed(output, at=found.time)
        self._note_answer(request, identity, output, charge, 0.0, replayed=True)
        await self._recorder.commit()
        return output

    async def _buy(self, request: ModelRequest, identity: str) -> ModelOutput:
        reserved = await self._reserve(request)
        try:
            await self._recorder.durable(
                "model.requested",
                **self._role,
                call=request.call,
                reserved=reserved,
                provider=self._provider.name,
                model=request.model,
                messages=len(request.messages),
                parameters=request.parameters,
                tools=[tool["function"]["name"] for tool in request.tools],
                request=identity,
            )
            output, duration = await self._send(request)
        except BaseException:
            self._spending.lost()
            raise
        output = _with_ids(output, request.call)
        charge = self._spending.answered(output)
        self._note_answer(request, identity, output, charge, duration)
        await self._recorder.commit()
        if self._cassette is not None:
            await self._cassette.keep(
                self._provider.name, self._filed(request), self._trial, output
            )
        return output

    def _filed(self, request: ModelRequest) -> ModelRequest:
        """Return the request as a cassette knows it: what trials share has no number in one."""
        return attrs.evolve(request, call=1) if self._shared else request

    async def _send(self, request: ModelRequest) -> tuple[ModelOutput, float]:
        """Return the answer and the seconds it took, without waits; tried again by the policy."""
        waited = 0.0

        async def on_retry(error: ModelError, wait: float, sends: int) -> None:
            nonlocal waited
            billed = self._spending.failed(error)
            scope.deadline = math.inf  # waiting for room in the budget is no work
            started = time.monotonic()
            try:
                await self._reserve(request)
            except Stopped:
                await self._failed(request, error, billed=billed)
                raise
            await self._recorder.durable(
                "model.retried",
                **self._role,
                call=request.call,
                sends=sends,
                wait=wait,
                billed=billed,
                error=_told(error),
            )
            waited += wait + time.monotonic() - started
            self._allowance.wait(wait)
            scope.deadline = anyio.current_time() + self._allowance.seconds

        started = time.monotonic()
        try:
            with anyio.move_on_after(self._allowance.seconds) as scope:
                output = await retries.generate(self._provider, request, self._policy, on_retry)
                return output, time.monotonic() - started - waited
        except ModelError as error:
            billed = self._spending.failed(error)
            await self._failed(request, error, billed=billed)
            raise Stopped(_model_failure(error, first=request.call == 1)) from None
        raise Stopped(self._allowance.out_of_time())

    # Any: what the journal keeps, which is JSON.
    async def _reserve(self, request: ModelRequest) -> dict[str, Any]:
        """Wait for room in the budget; the attempt ends if there will be none."""
        waited = self._spending.waited
        try:
            with anyio.move_on_after(self._allowance.time_left):
                return await self._spending.reserve(request)
        except OutOfBudget as over:
            raise Stopped(over.outcome) from None
        except PolicyDenied as denial:
            raise Stopped(failed(AttemptState.INFRA_ERROR, denial)) from None
        finally:
            self._allowance.wait(self._spending.waited - waited)
        raise Stopped(self._allowance.out_of_time())

    async def _failed(
        self, request: ModelRequest, error: ModelError, *, billed: bool | None
    ) -> None:
        await self._recorder.durable(
            "model.failed",
            **self._role,
            call=request.call,
            billed=billed,
            error=_told(error),
        )

    def _note_answer(
        self,
        request: ModelRequest,
        identity: str,
        output: ModelOutput,
        charge: Charge,
        duration: float,
        *,
        replayed: bool = False,
    ) -> None:
        self._allowance.spend(charge.amount)
        self._recorder.note(
            "model.responded",
            **self._role,
            call=request.call,
            request=identity,
            replayed=replayed,
            duration=duration,
            cost=charge.cost.to_json() if charge.cost else None,
            **output.to_json(),
        )


def _told(error: ModelError) -> dict[str, str]:
    return {"type": error.code, "message": error.message}


def _model_failure(error: ModelError, *, first: bool) -> Outcome:
    outcome = failed(AttemptState.MODEL_ERROR, error)
    # No model answered, and none will: the caller has to change what he wrote.
    raises = error if first and isinstance(error, _WRONG_CONFIG) else None
    return attrs.evolve(outcome, raises=raises)


def _with_ids(output: ModelOutput, call: int) -> ModelOutput:
    """Give every tool call an id of its own: models leave ids out, and repeat them."""
    if not output.tool_uses:
        return output
    seen: set[str] = set()
    uses: list[ToolUse] = []
    for index, use in enumerate(output.tool_uses, start=1):
        taken = not use.id or use.id in seen
        uses.append(attrs.evolve(use, id=f"call_{call}_{index}") if taken else use)
        seen.add(use.id)
    return attrs.evolve(output, tool_uses=tuple(uses))
