"""What the orchestrator needs of a store: texts that outlive a client."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol


class Notes(Protocol):
    """Where it is remembered from one client to the next."""

    async def notes(self, kind: str) -> Mapping[str, str]:
        """Return name -> text of one kind."""
        ...

    async def change_note(
        self, kind: str, name: str, new: Callable[[str | None], str | None]
    ) -> None:
        """Replace one text by what ``new`` makes of it."""
        ...
