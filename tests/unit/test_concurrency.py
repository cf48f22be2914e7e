"""How many calls a model gets: more while it answers well, fewer when it refuses or slows down."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from sandbox_sdk.errors import AdmissionTimeout, ModelRateLimited
from sandbox_sdk.experiments.batches.concurrency import (
    FIRST_CALLS,
    LEAST_CALLS,
    LOCAL_CALLS,
    MOST_CALLS,
    CallSlots,
    Concurrency,
    QueuedProvider,
    Ticket,
)
from sandbox_sdk.experiments.config import ExperimentConfig
from sandbox_sdk.experiments.models.base import ModelOutput, ModelRequest
from sandbox_sdk.experiments.models.mock import MockProvider
from sandbox_sdk.experiments.models.registry import ModelRegistry
from sandbox_sdk.policies import FixedAdmission, SlotRequest

pytestmark = pytest.mark.anyio


def slots() -> CallSlots:
    return CallSlots(FIRST_CALLS, LEAST_CALLS, MOST_CALLS)


async def test_a_burst_of_refusals_halves_the_calls_once_and_never_below_the_least() -> None:
    found = slots()
    for _ in range(15):
        found.refused()
    assert found.limit == FIRST_CALLS // 2
    for _ in range(10):
        for _ in range(30):
            found.answered(1.0)
        found.refused()
    assert found.limit == LEAST_CALLS


async def test_calls_grow_one_by_one_only_while_all_places_are_used() -> None:
    found = slots()
    for _ in range(100):
        found.answered(1.0)
    assert found.limit == FIRST_CALLS, "nobody waited, so more places would change nothing"
    for _ in range(200):
        tokens = [object() for _ in range(found.limit)]
        for token in tokens:
            await found.take(token)
        for token in tokens:
            found.give(token)
            found.answered(1.0)
    assert found.limit == MOST_CALLS


async def test_slower_answers_take_a_tenth_of_the_calls() -> None:
    found = CallSlots(50, LEAST_CALLS, MOST_CALLS)
    for _ in range(60):
        found.answered(1.0)
    for _ in range(50):
        found.answered(5.0)
    assert found.limit == 45


async def test_an_api_model_a_local_model_and_a_mock_have_their_own_places() -> None:
    models, concurrency = ModelRegistry(environ={}), Concurrency()

    def limit(model: str) -> int | None:
        found = concurrency.slots(ExperimentConfig(model=model, prompt="x"), models)
        return None if found is None else found.limit

    assert limit("gpt-5.6-terra") == FIRST_CALLS
    assert limit("local/smollm2") == LOCAL_CALLS
    assert limit("mock/echo") is None
    one = concurrency.slots(ExperimentConfig(model="m", prompt="x"), models)
    assert one is concurrency.slots(ExperimentConfig(model="openai/m", prompt="y"), models)


class Slow(MockProvider):
    """Counts the calls that are under way."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self.refuse = False

    async def generate(self, request: ModelRequest) -> ModelOutput:
        """Take a moment."""
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await anyio.lowlevel.checkpoint()
            if self.refuse:
                raise ModelRateLimited("no", model="m", retryable=True)
            return await super().generate(request)
        finally:
            self.now -= 1


async def test_no_more_calls_are_under_way_than_there_are_places() -> None:
    slow, places = Slow(), CallSlots(3, 1, 3)
    request = ModelRequest(model="echo", messages=({"role": "user", "content": "hi"},))

    async def ask() -> None:
        provider = QueuedProvider(slow, Ticket(places))
        for _ in range(5):
            await provider.generate(request)

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(ask)
    assert slow.most == 3
    assert places.in_use == 0
    slow.refuse = True
    with pytest.raises(ModelRateLimited):
        await QueuedProvider(slow, Ticket(places)).generate(request)
    assert (places.in_use, places.limit) == (0, 1)


async def test_a_place_is_given_to_whoever_came_first_and_back_when_given_up() -> None:
    admission = FixedAdmission(1)
    order: list[str] = []

    async def hold(name: str) -> None:
        async with admission.slot(SlotRequest(owner="a", holder=name)):
            order.append(name)
            await anyio.lowlevel.checkpoint()

    with anyio.move_on_after(0.01):
        async with admission.slot(SlotRequest(owner="a", holder="given up")):
            await anyio.sleep_forever()
    async with anyio.create_task_group() as group:
        for name in "xyz":
            group.start_soon(hold, name)
    assert order == ["x", "y", "z"]
    many = FixedAdmission(7)
    async with anyio.create_task_group() as group:
        for number in range(7):
            request = SlotRequest(owner="b", holder=f"trial {number}", timeout=9)
            group.start_soon(_hold_for_ever, many, request)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(AdmissionTimeout, match=r"trial 0, .*trial 4 and 2 more"):
            async with many.slot(SlotRequest(owner="c", holder="me", timeout=0.01)):
                pass
        group.cancel_scope.cancel()


async def _hold_for_ever(admission: FixedAdmission, request: SlotRequest) -> None:
    async with admission.slot(request):
        await anyio.sleep_forever()
