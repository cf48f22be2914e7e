"""Who may start a sandbox now: a protocol, and the rule of a fixed number at a time."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

import anyio
import attrs

from sandbox_sdk.errors import AdmissionTimeout
from sandbox_sdk.values import Resources

_MOST_NAMED = 5


@attrs.frozen(kw_only=True, eq=False)
class SlotRequest:
    """A wish to start one sandbox.

    Attributes:
        owner: The run it is for; a run waits for its own without end.
        holder: What it is for, in words, for those that wait behind it.
        resources: What it may use.
        timeout: Seconds to wait while others hold all places.
    """

    owner: str
    holder: str
    resources: Resources = attrs.field(factory=Resources)
    timeout: float = 60.0


class Admission(Protocol):
    """Lets sandboxes start while there is room. It acts at start, never at creation."""

    def slot(self, request: SlotRequest) -> AbstractAsyncContextManager[None]:
        """Wait until a sandbox may start, and hold its place while the context lasts.

        Raises:
            AdmissionTimeout: Others held all places for too long; the message names them.
        """
        ...


class FixedAdmission:
    """So many sandboxes at a time, first come, first served.

    Args:
        places: How many.
    """

    def __init__(self, places: int) -> None:
        self._free = anyio.CapacityLimiter(places)
        self._places = places
        self._holders: dict[object, SlotRequest] = {}

    @asynccontextmanager
    async def slot(self, request: SlotRequest) -> AsyncGenerator[None, None]:
        """Wait for a place, and hold it while the context lasts.

        Raises:
            AdmissionTimeout: Others held all places for too long; the message names them.
        """
        token = object()
        while not await self._taken(token, request.timeout):
            # Whoever waits for trials of its own run gets a place when one of them ends. Nobody
            # holds one while it goes from hand to hand.
            owners = {holder.owner for holder in self._holders.values()}
            if owners and request.owner not in owners:
                raise self._refusal(request)
        self._holders[token] = request
        try:
            yield
        finally:
            del self._holders[token]
            self._free.release_on_behalf_of(token)

    async def _taken(self, token: object, seconds: float) -> bool:
        with anyio.move_on_after(seconds):
            await self._free.acquire_on_behalf_of(token)
            return True
        return False

    def _refusal(self, request: SlotRequest) -> AdmissionTimeout:
        holders = [holder.holder for holder in self._holders.values()]
        named = ", ".join(holders[:_MOST_NAMED])
        if len(holders) > _MOST_NAMED:
            named += f" and {len(holders) - _MOST_NAMED} more"
        return AdmissionTimeout(
            f"{request.holder} waited {request.timeout:g} s for one of {self._places} places for "
            f"sandboxes, all held by others: {named}; end one of them, or raise admission_timeout"
        )
