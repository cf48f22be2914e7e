"""Who may pay for a model's call now: a protocol that an operator's rules implement."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Protocol


class Purse(Protocol):
    """Lets models be paid for, on account of the sandboxes that they work in."""

    def paying(self, metadata: Mapping[str, str]) -> None:
        """Let a call be made.

        Args:
            metadata: Of the sandboxes it is made for.

        Raises:
            PolicyDenied: What may be spent on them is spent.
        """
        ...

    def paid(self, metadata: Mapping[str, str], cost: Decimal) -> None:
        """Take note of what a call cost, in US dollars."""
        ...
