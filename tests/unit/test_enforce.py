"""The rules are enforced whatever happens to the process, and what other clients used counts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal

import pytest

from sandbox_sdk.backends.base import Standing
from sandbox_sdk.errors import PolicyDenied, StateError
from sandbox_sdk.orchestrator import enforce
from sandbox_sdk.orchestrator.enforce import Enforcer
from sandbox_sdk.rulebook import Rulebook
from sandbox_sdk.rules import Rule
from sandbox_sdk.values import Ended, Isolation, SandboxInfo, SandboxSpec

pytestmark = pytest.mark.anyio


class Shared:
    """The notes of a state folder, which its clients share."""

    def __init__(self) -> None:
        self._kept: dict[str, dict[str, str]] = {}

    async def notes(self, kind: str) -> Mapping[str, str]:
        return dict(self._kept.get(kind, {}))

    async def change_note(
        self, kind: str, name: str, new: Callable[[str | None], str | None]
    ) -> None:
        kept = self._kept.setdefault(kind, {})
        text = new(kept.pop(name, None))
        if text is not None:
            kept[name] = text


class Runs:
    """Sandboxes that run until they are stopped."""

    def __init__(self, *infos: SandboxInfo) -> None:
        self.infos = list(infos)

    async def running(self) -> Sequence[SandboxInfo]:
        return tuple(self.infos)

    async def standing(self, id: str) -> Standing | None:
        (info,) = [each for each in self.infos if each.id == id]
        return Standing(isolation=Isolation(level="medium", runtime="zygote"), limits=(), info=info)

    async def stop(self, id: str, why: Ended | None = None) -> SandboxInfo:
        (info,) = [each for each in self.infos if each.id == id]
        self.infos.remove(info)
        return info


def sandbox(id: str) -> SandboxInfo:
    return SandboxInfo(id=id, spec=SandboxSpec(name=id, template=id, timeout=60.0))


def known_by(spec: SandboxSpec) -> tuple[str, ...]:
    if spec.template == "damaged":
        raise StateError("the names cannot be read")
    return (str(spec.template),)


def enforcer(notes: Shared, *rules: Rule) -> Enforcer:
    return Enforcer(
        Rulebook(rules), notes, client="uid 1", known_by=known_by, protections=lambda _: ()
    )


async def test_what_cannot_be_looked_at_keeps_nothing_else_from_being_ended() -> None:
    runs = Runs(sandbox("damaged"), sandbox("other"))
    held = enforcer(Shared(), Rule(name="ours", templates=("python",)))
    assert await held.check(runs) == ("other",)
    assert [info.id for info in runs.infos] == ["damaged"]


async def test_a_life_counts_though_the_process_that_held_it_was_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(enforce, "NOTE_SECONDS", 0.0)
    notes, info = Shared(), sandbox("python")
    rule = Rule(name="ours", lifetime=100.0)
    killed = enforcer(notes, rule)
    with killed.starting(info):
        began = time.monotonic()
    await killed.check(Runs(info))  # and is never told of an end
    lived = (await notes.notes("policy_lived"))[info.id]
    assert 0 <= float(lived) <= time.monotonic() - began + 0.001
    await notes.change_note("policy_lived", info.id, lambda text: str(float(text or 0) + 100))
    after = enforcer(notes, rule)
    await after.refresh()
    with pytest.raises(PolicyDenied, match="has lived for its 100 seconds"), after.starting(info):
        pytest.fail("it was let in")


async def test_what_another_client_spent_or_had_live_counts_at_once() -> None:
    """Also in one that has used nothing itself since it was opened."""
    notes, info = Shared(), sandbox("python")
    rules = [Rule(name="purse", cost=Decimal(1)), Rule(name="short", lifetime=100.0)]
    idle, busy = enforcer(notes, *rules), enforcer(notes, *rules)
    await idle.refresh()
    busy.paid({}, Decimal(1))
    await busy.save()
    await idle.refresh()
    with pytest.raises(PolicyDenied, match=r"\$1 were to be spent"):
        idle.create(info.spec)
    runs = Runs(info)
    assert await idle.check(runs) == (info.id,)


async def test_a_call_is_paid_once_under_a_name_that_rules_of_two_sources_have() -> None:
    notes = Shared()
    rules = [Rule(name="purse", source=each, cost=Decimal(5)) for each in ("host", "file")]
    held = enforcer(notes, *rules)
    held.paid({}, Decimal(1))
    await held.save()
    assert await notes.notes("policy_spent") == {"purse": "1"}


@pytest.mark.parametrize("text", ["much", "NaN", "Infinity", "-100"])
async def test_a_sum_that_is_none_allows_nothing(text: str) -> None:
    notes = Shared()
    await notes.change_note("policy_spent", "purse", lambda _: text)
    held = enforcer(notes, Rule(name="purse", cost=Decimal(1)))
    with pytest.raises(StateError, match="remembers no number of policy_spent for purse"):
        await held.refresh()
    await held.check(Runs())  # nor does it end the look-out for drift
