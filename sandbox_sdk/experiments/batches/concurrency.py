"""How many calls a model gets at once: more while it answers well, fewer when it refuses.

Additive increase, multiplicative decrease. A refusal for load halves the number; when the slowest
twentieth of the answers takes twice as long as it did, a tenth is given up; when all places were
in use and neither happened, one is added.
"""

from __future__ import annotations

from collections import deque

import anyio
import attrs

from sandbox_sdk.errors import ModelRateLimited
from sandbox_sdk.experiments.config import ExperimentConfig
from sandbox_sdk.experiments.models.base import ModelOutput, ModelProvider, ModelRequest
from sandbox_sdk.experiments.models.registry import ModelRegistry

FIRST_CALLS, LEAST_CALLS, MOST_CALLS = 20, 10, 100
"""Calls at once of a model behind an API: at first, at least, at most."""

LOCAL_CALLS = 1
"""Calls at once of a model on this machine: more would share its processor and change its text."""

_WINDOW = 20  # answers from which on the slowest twentieth means anything
_SLOWER = 2.0
_FORGET = 1.05  # per window: a provider that has become slower for good is the new normal


class CallSlots:
    """The places among a model's callers.

    Args:
        first: How many at first.
        least: How many at least.
        most: How many at most.
    """

    def __init__(self, first: int, least: int, most: int) -> None:
        self._least = least
        self._most = most
        self._places = anyio.CapacityLimiter(first)
        self._seconds: deque[float] = deque(maxlen=_WINDOW * 4)
        self._since_change = _WINDOW
        self._was_full = False
        self._fastest = float("inf")

    @property
    def limit(self) -> int:
        """How many calls may be under way."""
        return int(self._places.total_tokens)

    @property
    def in_use(self) -> int:
        """How many are."""
        return self._places.borrowed_tokens

    async def take(self, token: object) -> None:
        """Wait for a place."""
        await self._places.acquire_on_behalf_of(token)
        self._was_full = self._was_full or self._places.available_tokens <= 0

    def give(self, token: object) -> None:
        """Give a place back."""
        self._places.release_on_behalf_of(token)

    def refused(self) -> None:
        """Take a refusal for load into account; one burst of them counts once."""
        if self._since_change >= min(self.limit, _WINDOW):
            self._change(self.limit // 2)

    def answered(self, seconds: float) -> None:
        """Take an answer into account."""
        self._seconds.append(seconds)
        self._since_change += 1
        if self._since_change < max(_WINDOW, self.limit):
            return
        slow = sorted(self._seconds)[int(len(self._seconds) * 0.95)]
        self._fastest = min(self._fastest * _FORGET, slow)
        if slow > self._fastest * _SLOWER:
            self._change(self.limit * 9 // 10)
        else:
            self._change(self.limit + self._was_full)

    def _change(self, limit: int) -> None:
        self._places.total_tokens = max(self._least, min(self._most, limit))
        self._since_change = 0
        self._was_full = False


class Concurrency:
    """The places among the callers of each model that a client uses, shared by its runs."""

    def __init__(self) -> None:
        self._slots: dict[tuple[str, str, str | None], CallSlots] = {}

    def slots(self, config: ExperimentConfig, models: ModelRegistry) -> CallSlots | None:
        """Return the places of a config's model; ``None`` where nothing bounds it."""
        provider, request = models.request(config)
        if provider.name == "mock":
            return None  # nobody is asked
        key = (provider.name, request.model, request.base_url)
        if key not in self._slots:
            local = provider.name == "local"
            bounds = (LOCAL_CALLS,) * 3 if local else (FIRST_CALLS, LEAST_CALLS, MOST_CALLS)
            self._slots[key] = CallSlots(*bounds)
        return self._slots[key]


@attrs.define(eq=False)
class Ticket:
    """A place that was taken before the attempt began, for its first call."""

    slots: CallSlots
    held: bool = False

    async def take(self) -> None:
        """Wait for a place."""
        await self.slots.take(self)
        self.held = True

    def give(self) -> None:
        """Give the place back, if it is held. Idempotent."""
        if self.held:
            self.held = False
            self.slots.give(self)

    def queue(self, provider: ModelProvider) -> ModelProvider:
        """Return the provider with calls that wait for their place."""
        return QueuedProvider(provider, self)


class QueuedProvider:
    """A model provider whose calls wait for their place.

    Args:
        provider: Who answers.
        ticket: The place of the first call, and the places there are.
    """

    def __init__(self, provider: ModelProvider, ticket: Ticket) -> None:
        self._provider = provider
        self._ticket = ticket

    @property
    def name(self) -> str:
        """The word before the slash in ``provider/model``."""
        return self._provider.name

    @property
    def supports_tools(self) -> bool:
        """Whether its models can be expected to use OpenAI's ``tools``."""
        return self._provider.supports_tools

    async def check(self, request: ModelRequest) -> None:
        """Go on if the model can be called, as the provider says."""
        await self._provider.check(request)

    async def generate(self, request: ModelRequest) -> ModelOutput:
        """Wait for a place, then call the model once.

        Raises:
            ModelError: It gave no answer.
        """
        if not self._ticket.held:
            await self._ticket.take()
        started = anyio.current_time()
        try:
            output = await self._provider.generate(request)
        except ModelRateLimited:
            self._ticket.slots.refused()
            raise
        finally:
            self._ticket.give()
        self._ticket.slots.answered(anyio.current_time() - started)
        return output

    async def aclose(self) -> None:
        """Do nothing: the provider is the client's."""
