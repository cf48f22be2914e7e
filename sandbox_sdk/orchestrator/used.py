"""What was used under rules: dollars by rule, seconds by sandbox, remembered across clients."""

from __future__ import annotations

import contextlib
from decimal import Decimal, InvalidOperation
from functools import partial

import anyio

from sandbox_sdk.errors import StateError
from sandbox_sdk.orchestrator.notes import Notes

_SPENT, _LIVED = "policy_spent", "policy_lived"


class Used:
    """Sums of what was used; other clients of the state folder add to the same.

    Args:
        notes: Where they are remembered.
    """

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._known: dict[str, dict[str, Decimal]] = {_SPENT: {}, _LIVED: {}}
        self._new: dict[str, dict[str, Decimal]] = {_SPENT: {}, _LIVED: {}}
        self._saving = anyio.Lock(fast_acquire=True)  # what is new is added once

    def spent(self, rule: str) -> Decimal:
        """Return the US dollars spent under a rule."""
        return self._sum(_SPENT, rule)

    def spend(self, rule: str, cost: Decimal) -> None:
        """Add US dollars."""
        self._add(_SPENT, rule, cost)

    def lived(self, sandbox: str) -> float:
        """Return the seconds that a sandbox has lived in set-ups that ended."""
        return float(self._sum(_LIVED, sandbox))

    def live(self, sandbox: str, seconds: float) -> None:
        """Add seconds."""
        self._add(_LIVED, sandbox, Decimal(f"{seconds:.3f}"))

    async def load(self) -> None:
        """Read what all clients remembered.

        Raises:
            StateError: It cannot be read: what is spent is then unknown.
        """
        async with self._saving:
            await self._load()

    async def _load(self) -> None:
        for kind, known in self._known.items():
            found = await self._notes.notes(kind)
            known.clear()
            known.update({name: _read(kind, name, text) for name, text in found.items()})

    async def save(self) -> None:
        """Remember what is new.

        Raises:
            StateError: It cannot be written; it is tried again the next time.
        """
        async with self._saving:
            for kind, new in self._new.items():
                for name, amount in tuple(new.items()):
                    await self._notes.change_note(kind, name, partial(_added, kind, name, amount))
                    new[name] -= amount  # what came meanwhile stays
                    if not new[name]:
                        del new[name]
                    known = self._known[kind]
                    known[name] = known.get(name, Decimal(0)) + amount

    async def forget(self, sandbox: str) -> None:
        """Forget a sandbox that was deleted."""
        async with self._saving:
            self._new[_LIVED].pop(sandbox, None)
            if self._known[_LIVED].pop(sandbox, None) is not None:
                await self._notes.change_note(_LIVED, sandbox, _nothing)

    def _sum(self, kind: str, name: str) -> Decimal:
        nothing = Decimal(0)
        return self._known[kind].get(name, nothing) + self._new[kind].get(name, nothing)

    def _add(self, kind: str, name: str, amount: Decimal) -> None:
        self._new[kind][name] = self._new[kind].get(name, Decimal(0)) + amount


def _added(kind: str, name: str, amount: Decimal, text: str | None) -> str:
    before = Decimal(0) if text is None else _read(kind, name, text)
    return str(before + amount)


def _nothing(text: str | None) -> None:
    """Leave no text."""


def _read(kind: str, name: str, text: str) -> Decimal:
    with contextlib.suppress(InvalidOperation):
        amount = Decimal(text)
        if amount.is_finite() and amount >= 0:
            return amount
    raise StateError(
        f"the state database remembers no number of {kind} for {name}: what was used under "
        "rules is unknown, so nothing can be allowed; remove the note, or restore a backup"
    )
