"""What one attempt writes into the journal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sandbox_sdk.experiments.digests import digest
from sandbox_sdk.experiments.journal import Journal


# Any: an event's data is JSON.
class Recorder:
    """Notes the events of one attempt."""

    def __init__(self, journal: Journal, trial: str, attempt: int) -> None:
        self.trial = trial
        self._journal = journal
        self._attempt = attempt
        self._messages: set[str] = set()

    def note(self, type: str, **data: Any) -> None:
        """Append an event; it is durable with the next one that is."""
        self._journal.append(type, trial=self.trial, attempt=self._attempt, **data)

    async def durable(self, type: str, **data: Any) -> None:
        """Append an event, and return when it and all before it are on the disk.

        Raises:
            StateError: They cannot be.
        """
        self.note(type, **data)
        await self._journal.commit()

    def message(self, message: Mapping[str, Any]) -> None:
        """Note the conversation's next message; one said before is named by its digest."""
        identity = digest(message)
        if identity in self._messages:
            self.note("message.added", digest=identity)
        else:
            self._messages.add(identity)
            self.note("message.added", digest=identity, message=message)
