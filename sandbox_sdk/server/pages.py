"""Long lists a page at a time: a cursor names the last of a page, so that none is missed or twice.

It is a place in time, not in a list: what is made or deleted meanwhile moves nothing.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Protocol, TypeVar

from sandbox_sdk.errors import RequestRefused

MOST_LISTED = 1000
"""Most records of a page, and most ids of a question about usage."""


class Dated(Protocol):
    """What can be listed: it was made at some time, and its id tells it from its like."""

    @property
    def id(self) -> str:
        """Its id."""
        ...

    @property
    def created_at(self) -> float:
        """When it was made, in seconds since the epoch."""
        ...


T = TypeVar("T", bound=Dated)


def cut(every: Sequence[T], after: str, most: int) -> tuple[Sequence[T], str | None]:
    """Return one page, and the cursor of the next; ``None`` is the end.

    Args:
        every: All there are, oldest first.
        after: The cursor of this page; empty is the first.
        most: How many a page has at most.

    Raises:
        RequestRefused: The cursor is none.
    """
    place = _place(after) if after else None
    left = [each for each in every if place is None or (each.created_at, each.id) > place]
    page = left[:most]
    return page, _cursor(page[-1]) if len(left) > most else None


def _cursor(last: Dated) -> str:
    return base64.urlsafe_b64encode(f"{last.created_at!r} {last.id}".encode()).decode()


def _place(cursor: str) -> tuple[float, str]:
    try:
        at, _, id_ = base64.urlsafe_b64decode(cursor.encode()).decode().partition(" ")
        return float(at), id_
    except (ValueError, binascii.Error):
        raise RequestRefused("after: is no cursor that this server gave out") from None
