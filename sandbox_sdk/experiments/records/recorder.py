"""What one attempt writes into the journal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sandbox_sdk.experiments.records.digests import digest
from sandbox_sdk.experiments.records.journal import Journal

_SHARED_CHARACTERS = 200
"""Shorter messages are as long as a digest and its place would be."""


# Any: an event's data is JSON.
class Recorder:
    """Notes the events of one attempt.

    Args:
        journal: The run's journal.
        trial: The trial's key.
        attempt: The attempt's number, from 1.
        library: Digests of what any attempt of the run has stored for all of them.

    Attributes:
        trial: The trial's key.
        said: The conversation so far.
        output: What the attempt has given so far: the last answer, or what its code wrote.
        collected: The files that were kept of its workspace.
    """

    def __init__(
        self, journal: Journal, trial: str, attempt: int, library: set[str] | None = None
    ) -> None:
        self._journal = journal
        self.trial = trial
        self._attempt = attempt
        self._library = set[str]() if library is None else library
        self._messages: set[str] = set()
        self.said: list[Mapping[str, Any]] = []
        self.output = ""
        self.collected: tuple[Mapping[str, Any], ...] = ()

    def note(self, type: str, **data: Any) -> None:
        """Append an event; it is durable with the next one that is."""
        kept = self._journal.append(type, trial=self.trial, attempt=self._attempt, **data).data
        if type == "model.responded" and "role" not in kept:
            self.output = kept["texts"][0] if kept["texts"] else ""
        elif type == "code.finished":
            self.output = kept["text"]
        elif type == "artifacts.collected":
            self.collected = tuple(kept["artifacts"])

    async def durable(self, type: str, **data: Any) -> None:
        """Append an event, and return when it and all before it are on the disk.

        Raises:
            StateError: They cannot be.
        """
        self.note(type, **data)
        await self._journal.commit()

    async def commit(self) -> None:
        """Return when all that was noted is on the disk.

        Raises:
            StateError: It cannot be.
        """
        await self._journal.commit()

    def message(self, message: Mapping[str, Any], *, opening: bool = False) -> None:
        """Note the conversation's next message; one said before is named by its digest.

        Args:
            message: The message.
            opening: Whether other attempts may begin with it too, so that it is stored for all.
        """
        self.said.append(message)
        identity = digest(message)
        if identity in self._messages or identity in self._library:
            self.note("message.added", digest=identity)
        elif opening and len(str(message.get("content"))) >= _SHARED_CHARACTERS:
            self._library.add(identity)
            self.note("message.added", digest=identity, message=message, shared=True)
        else:
            self._messages.add(identity)
            self.note("message.added", digest=identity, message=message)

    def standing(self, isolation: Mapping[str, Any] | None, limits: object) -> None:
        """Note what is in force in the sandbox; what is alike in another is named by its digest."""
        identity = digest([_alike(isolation), limits])
        if identity in self._library:
            self.note("sandbox.ready", digest=identity)
        else:
            self._library.add(identity)
            self.note(
                "sandbox.ready",
                digest=identity,
                isolation=isolation,
                limits=limits,
                shared=True,
            )


def _alike(isolation: Mapping[str, Any] | None) -> object:
    """Return what is in force without how it was seen, such as a namespace's number."""
    if isolation is None:
        return None
    walls = [
        {name: told for name, told in wall.items() if name != "detail"}
        for wall in isolation["walls"]
    ]
    return {**isolation, "walls": walls}
