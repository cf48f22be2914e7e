"""What is proposed follows from what was seen, and from enough of it."""

from __future__ import annotations

import attrs

from sandbox_sdk.orchestrator.evidence import RECENT, Evidence, Witness
from sandbox_sdk.orchestrator.optimize import ENOUGH, Suggestion, suggest
from sandbox_sdk.orchestrator.snapshot import ResourceSnapshot
from sandbox_sdk.values import GIB, MIB, Ended, EndKind, SandboxInfo, SandboxSpec, Usage

SEEN = Evidence(
    template="python",
    ended=ENOUGH,
    peak_bytes=100 * MIB,
    peaks=(50 * MIB, 100 * MIB),
    running=(1, 2, 4),
)


def proposed(*seen: Evidence, current: int = GIB, places: int = 8) -> tuple[Suggestion, ...]:
    return suggest(seen, memory_of=lambda _: current, places=places)


def test_memory_is_the_largest_peak_and_a_fifth_with_evidence_and_saving() -> None:
    (found,) = proposed(SEEN)
    assert (found.setting, found.template) == ("memory", "python")
    assert (found.current, found.proposed) == (GIB, 128 * MIB)
    assert found.saving_bytes == 4 * (GIB - 128 * MIB)
    assert "5 sandboxes ended, 0 of them" in found.evidence
    assert "largest peak 100 MiB" in found.evidence


def test_more_is_proposed_where_memory_was_wanting() -> None:
    starved = attrs.evolve(SEEN, oom=3, peak_bytes=GIB)
    (found,) = proposed(starved)
    assert found.proposed > GIB
    assert found.saving_bytes < 0


def test_nothing_is_proposed_without_enough_evidence_or_need() -> None:
    assert proposed(attrs.evolve(SEEN, ended=ENOUGH - 1)) == ()
    assert proposed(attrs.evolve(SEEN, peak_bytes=None)) == ()
    assert proposed(SEEN, current=128 * MIB) == ()


def test_concurrency_is_proposed_where_more_ran_than_places_allow() -> None:
    found = proposed(SEEN, current=128 * MIB, places=3)
    assert [(each.setting, each.current, each.proposed) for each in found] == [
        ("max_concurrency", 3, 4)
    ]


def info(id: str) -> SandboxInfo:
    return SandboxInfo(id=id, spec=SandboxSpec(name=id, template="python"))


def test_a_witness_keeps_peaks_of_what_runs_and_what_ended() -> None:
    witness = Witness()
    assert witness.peak_of("python") is None
    for id_ in ("a", "b"):
        witness.started(info(id_), seconds=0.1, ready=False)
    running = Usage(sandbox_id="a", memory_peak_bytes=70)
    witness.seen([info("a")], ResourceSnapshot(taken_at=0.0, sandboxes=(running,)))
    assert witness.peak_of("python") == 70
    ended = Ended(kind=EndKind.OOM, limit="memory")
    witness.ended(info("b"), ended, Usage(sandbox_id="b", memory_peak_bytes=90, final=True))
    (seen,) = witness.all
    assert (seen.ended, seen.oom, seen.peak_bytes, seen.peaks) == (1, 1, 90, (90,))
    assert seen.running == (1, 2)
    assert witness.take_new() == (seen,)
    assert witness.take_new() == ()


def test_what_is_kept_has_a_bound() -> None:
    many = SEEN
    for _ in range(RECENT):
        many = many.with_more(SEEN)
    assert len(many.peaks) == len(many.running) == RECENT
    assert many.ended == ENOUGH * (RECENT + 1)
