"""``docs/scorers.md`` names every scorer with every field, and its example is what is printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sandbox_sdk.experiments.results.compare import compare
from sandbox_sdk.experiments.results.rates import TrialScore
from sandbox_sdk.experiments.scorers import KINDS
from sandbox_sdk.experiments.scorers.function import ARGUMENTS
from sandbox_sdk.values import COUNTED, AttemptState

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "scorers.md").read_text()
CODE = re.compile(r"`([^`\n]+)`")


def tables() -> dict[str, set[str]]:
    """Return, for each word in code in the head of a table, the words of its first column."""
    found: dict[str, set[str]] = {}
    for block in re.findall(r"(?:^\|.*\n)+", PAGE, re.MULTILINE):
        head, _, *rows = block.splitlines()
        words = {word for row in rows for word in CODE.findall(row.split("|")[1])}
        for name in CODE.findall(head.split("|")[1]) or [head.split("|")[1].strip()]:
            found[name] = words
    return found


def test_every_type_is_listed() -> None:
    assert tables()["type"] == KINDS.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_of_a_type_stands_in_its_table(kind: str) -> None:
    of_several = tables()["field of several"]
    fields = KINDS[kind].readers.keys()
    assert tables()[kind] | (of_several & fields) == fields


def test_what_a_function_may_take_and_who_counts_is_told() -> None:
    told = set(CODE.findall(PAGE))
    assert set(ARGUMENTS) <= told
    counted = PAGE.partition("Counted are trials")[2].partition("and that the scorer")[0]
    assert set(CODE.findall(counted)) == {state.value for state in COUNTED}


def test_the_example_of_a_comparison_is_what_is_printed() -> None:
    def side(values: str) -> list[TrialScore]:
        return [
            TrialScore(
                sample=str(index),
                state=AttemptState.COMPLETED,
                value=None if mark == "-" else float(mark),
            )
            for index, mark in enumerate(values)
        ]

    found = compare(side("1100-"), side("1110-"), scorer="exact", names=("old", "new"))
    assert "\n".join(found.lines()[:-1]) in PAGE  # the last tells the rule, as the page does
