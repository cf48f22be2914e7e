"""Scorers that compare texts: their verdicts, their configs, and hostile input."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import anyio
import pytest

from sandbox_sdk.errors import ConfigError, LaunchError, StateError
from sandbox_sdk.experiments.scorers import (
    KINDS,
    UNSCORED,
    Score,
    Scorer,
    Submission,
    build,
    build_all,
    checker,
    scored,
)
from sandbox_sdk.experiments.scorers.numeric import numbers_in
from sandbox_sdk.values import Sample

pytestmark = pytest.mark.anyio


def submission(output: str, target: Any = None) -> Submission:
    return Submission(output=output, sample=Sample(id="s1", prompt="?", target=target))


async def judge(spec: Any, output: str, target: Any = None) -> Score:
    scorer = build(spec)
    score = await scorer.score(submission(output, target))
    assert Score.from_json(json.loads(json.dumps(score.to_json(), allow_nan=False))) == score
    assert (score.scorer, score.digest) == (scorer.name, scorer.digest)
    return score


@pytest.mark.parametrize(
    ("spec", "output", "target", "value"),
    [
        ("exact", " Paris\n", "Paris", 1),
        ("exact", "Paris.", "Paris", 0),
        ("exact", "paris", "Paris", 0),
        ({"type": "exact", "ignore_case": True}, "PARIS", "Paris", 1),
        ({"type": "exact", "strip": False}, "Paris ", "Paris", 0),
        ("exact", "42", 42, 1),
        ("exact", "B", ["A", "B"], 1),
        ({"type": "exact", "target": "x"}, "x", "y", 1),
        ("includes", "It is Paris.", "Paris", 1),
        ("includes", "It is Rome.", ["Paris", "Rome"], 1),
        ("includes", "It is Bern.", ["Paris", "Rome"], 0),
        ({"type": "includes", "ignore_case": True}, "STRASSE", "straße", 1),
        ("numeric", "so 3 + 4 = 7.", 7, 1),
        ("numeric", "It costs $1,234.50", 1234.5, 1),
        ("numeric", "-3", "-3", 1),
        ("numeric", "10-3", 3, 1),
        ("numeric", "x = \u22125", -5, 1),
        ("numeric", "about 6.02e23 of H2O", 6.02e23, 1),
        ("numeric", "none", 1, 0),
        ({"type": "numeric", "which": "first"}, "7 then 8", 7, 1),
        ({"type": "numeric", "which": "only"}, "7 then 8", 7, 0),
        ({"type": "numeric", "absolute_tolerance": 0.01}, "3.14", math.pi, 1),
        ({"type": "numeric", "absolute_tolerance": 0.001}, "3.14", math.pi, 0),
        ({"type": "numeric", "relative_tolerance": 0.1}, "95", 100, 1),
        ({"type": "regex", "pattern": r"\bParis\b"}, "in Paris!", None, 1),
        ({"type": "regex", "pattern": "^b$"}, "a\nb", None, 0),
        ({"type": "regex", "pattern": "^b$", "multiline": True}, "a\nb", None, 1),
        ({"type": "regex", "pattern": "A.B", "dotall": True, "ignore_case": True}, "a\nb", 0, 1),
        ({"type": "regex", "pattern": r"answer: (\w+)", "group": 1}, "answer: B", "B", 1),
        ({"type": "regex", "pattern": r"answer: (?P<a>\w+)", "group": "a"}, "answer: B", "C", 0),
        ({"type": "regex", "pattern": "B|C", "group": 0}, "C", ["A", "C"], 1),
        ({"type": "regex", "pattern": "x(y)?", "group": 1}, "x", "y", 0),
        ("json_schema", '{"a": 1}', None, 1),
        ("json_schema", "Here:\n```json\n[1, 2]\n```\nDone.", None, 1),
        ("json_schema", "no json", None, 0),
        ("json_schema", "NaN", None, 0),
        ({"type": "json_schema", "schema": {"type": "integer"}}, "1.5", None, 0),
        ({"type": "json_schema", "schema": {"required": ["b"]}}, '{"a": 1}', None, 0),
    ],
)
async def test_verdicts(spec: Any, output: str, target: Any, value: float) -> None:
    assert (await judge(spec, output, target)).value == value


async def test_a_score_says_what_was_judged_and_why() -> None:
    score = await judge({"type": "regex", "pattern": "is (.*)", "group": 1}, "it is B", "B")
    assert (score.label, score.answer) == ("correct", "B")
    schema = {"properties": {"a": {"type": "string"}}, "required": ["b"]}
    score = await judge({"type": "json_schema", "schema": schema}, '{"a": 1}')
    assert score.label == "invalid"
    assert score.explanation == "$.a: must be string\n$.b: is required"


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("1,234 and 1,23 and 12,345,678.9", [1234, 1, 23, 12345678.9]),
        ("v1.2.3", []),
        ("1.2.3", [1.2]),
        (".5 5. 5.5", [0.5, 5, 5.5]),
        ("1e5 1e99999 -1E-2", [1e5, -0.01]),
        ("\u0661\u0662", []),
    ],
)
def test_numbers_are_those_a_reader_sees(text: str, numbers: list[float]) -> None:
    assert list(numbers_in(text)) == numbers


@pytest.mark.parametrize("text", ["1," * 400_000, "1,111" * 200_000, "9" * 2_000_000, "+-" * 10**6])
def test_finding_numbers_takes_time_in_proportion_to_a_hostile_text(text: str) -> None:
    started = time.process_time()
    for _ in numbers_in(text):
        pass
    assert time.process_time() - started < 5


async def test_a_pattern_that_never_ends_is_ended_and_scores_nothing() -> None:
    spec = {"type": "regex", "pattern": "(a+)+$", "timeout": 0.2}
    started = time.monotonic()
    score = await judge(spec, "a" * 64 + "!")
    assert time.monotonic() - started < 10
    assert (score.value, score.label, score.counted) == (None, UNSCORED, False)
    assert "longer than 0.2 s" in (score.explanation or "")
    # And the next check has a process of its own.
    assert (await judge(spec, "b aa")).value == 1


async def test_a_pattern_in_a_schema_that_never_ends_is_ended_too() -> None:
    spec = {"type": "json_schema", "schema": {"pattern": "(a+)+$"}, "timeout": 0.2}
    assert (await judge(spec, json.dumps("a" * 64 + "!"))).label == UNSCORED


def test_a_check_whose_owner_is_gone_is_ended_by_the_kernel() -> None:
    """No process is left behind that matches for ever: here nobody waits for its answer."""
    folder = str(Path(checker.__file__).parent)
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", checker.PROGRAM, folder], stdin=subprocess.PIPE
    ) as process:
        asked = {
            "do": "search",
            "seconds": 0,
            "pattern": "(a+)+$",
            "flags": 0,
            "text": "a" * 64 + "!",
        }
        process.communicate(json.dumps(asked).encode() + b"\n", timeout=15)
    assert process.returncode == -signal.SIGALRM


async def test_checks_at_the_same_time_do_not_wait_for_one_that_hangs() -> None:
    slow = build({"type": "regex", "pattern": "(a+)+$", "timeout": 3})
    quick = build({"type": "regex", "pattern": "a"})
    hostile = submission("a" * 64 + "!")
    ended: list[str] = []

    async def judge_it(scorer: Scorer, name: str) -> None:
        await scorer.score(hostile)
        ended.append(name)

    async with anyio.create_task_group() as group:
        group.start_soon(judge_it, slow, "slow")
        for _ in range(5):
            group.start_soon(judge_it, quick, "quick")
    assert ended == ["quick"] * 5 + ["slow"]


async def test_a_check_can_be_given_up_at_once() -> None:
    scorer = build({"type": "regex", "pattern": "(a+)+$", "timeout": 3})
    started = time.monotonic()
    with anyio.move_on_after(0.1) as scope:
        await scorer.score(submission("a" * 64 + "!"))
    assert scope.cancelled_caught
    assert time.monotonic() - started < 2


async def test_json_nested_without_end_is_wrong_and_not_a_crash() -> None:
    score = await judge("json_schema", "[" * 500_000)
    assert (score.value, score.label) == (0, "not_json")
    assert (await judge("json_schema", "9" * 100_000)).value == 0


async def test_text_that_no_encoding_has_is_judged() -> None:
    assert (await judge({"type": "regex", "pattern": "(.+)", "group": 1}, "\ud800", "x")).value == 0
    assert (await judge("exact", "\ud800", "x")).value == 0


async def test_long_outputs_are_kept_short_in_the_score() -> None:
    score = await judge("exact", "x" * 100_000, "y")
    assert len(score.answer or "") < 3000
    assert "98,000 characters left out" in (score.answer or "")


@pytest.mark.parametrize(
    ("spec", "faults"),
    [
        ("exat", ['scorer.type: there is no scorer \'exat\'; did you mean "exact"?']),
        (3, ["scorer: must be a scorer's type, a mapping or a function, not 3"]),
        ({}, None),
        (
            {"type": "numeric", "which": "all", "absolute_tolerance": -1, "rel": 1},
            ["scorer.which:", "scorer.absolute_tolerance:", "scorer.rel: unknown key"],
        ),
        ({"type": "regex"}, ["scorer.pattern: is required"]),
        ({"type": "regex", "pattern": "("}, ["scorer.pattern: is no regular expression"]),
        ({"type": "regex", "pattern": "x" * 10_001}, ["scorer.pattern: is longer"]),
        ({"type": "regex", "pattern": "(" * 5000 + ")" * 5000}, ["scorer.pattern: is no regular"]),
        ({"type": "regex", "pattern": "x", "group": 1}, ["scorer.group: the pattern has 0"]),
        ({"type": "regex", "pattern": "x", "group": "a"}, ["scorer.group: the pattern has no"]),
        ({"type": "regex", "pattern": "x", "group": True}, ["scorer.group: must be the number"]),
        ({"type": "regex", "pattern": "x", "target": "x"}, ['scorer.target: needs "group"']),
        ({"type": "exact", "target": []}, ["scorer.target: must hold at least one"]),
        ({"type": "exact", "target": ["a", 1.5]}, ["scorer.target[1]: must be text"]),
        ({"type": "numeric", "target": "x"}, ["scorer.target: must be a finite number"]),
        ({"type": "numeric", "target": float("nan")}, ["scorer.target: must be a finite number"]),
        (
            {"type": "json_schema", "schema": {"typ": "object", "items": {"minimum": "1"}}},
            ['scorer.schema.typ: is no keyword that is checked; did you mean "type"?',
             "scorer.schema.items.minimum: must be a number"],
        ),
    ],
)  # fmt: skip
def test_a_wrong_config_is_refused_with_all_its_faults(spec: Any, faults: list[str] | None) -> None:
    with pytest.raises(ConfigError) as caught:
        build(spec)
    expected = faults or ["scorer.type: there is no scorer nothing; known are"]
    assert len(caught.value.faults) == len(expected)
    for found, said in zip(caught.value.faults, expected, strict=True):
        assert found.startswith(said)


@pytest.mark.parametrize(
    ("spec", "target", "fault"),
    [
        ("exact", None, "samples[3].target: is required"),
        ("exact", {"a": 1}, "samples[3].target: must be text"),
        ("includes", " ", "samples[3].target: holds an empty text"),
        ("numeric", None, "samples[3].target: must be a finite number"),
        ("numeric", 10**400, "samples[3].target: must be a finite number"),
        ({"type": "regex", "pattern": "(x)", "group": 1}, None, "samples[3].target: is required"),
    ],
)
def test_a_sample_without_what_a_scorer_needs_is_refused_before_any_model_is_paid(
    spec: Any, target: Any, fault: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        build(spec).check(Sample(id="x", target=target), "samples[3]")
    assert str(caught.value).startswith(fault)


def test_a_sample_may_lack_what_no_scorer_asks_for() -> None:
    for spec in (
        {"type": "exact", "target": "x"},
        {"type": "regex", "pattern": "x"},
        "json_schema",
    ):
        build(spec).check(Sample(id="x"), "samples[0]")


def test_a_list_of_scorers_tells_every_fault_and_wants_names_of_their_own() -> None:
    with pytest.raises(ConfigError) as caught:
        build_all(["exact", {"type": "exact"}, "nothing", {"type": "regex", "pattern": "("}])
    assert [fault.split(":")[0] for fault in caught.value.faults] == [
        "scorers[1].name",
        "scorers[2].type",
        "scorers[3].pattern",
    ]
    names = [scorer.name for scorer in build_all(["exact", {"type": "exact", "name": "loose"}])]
    assert names == ["exact", "loose"]
    assert build_all("exact")[0].name == "exact"


def test_a_digest_changes_with_what_decides_and_not_with_the_name() -> None:
    plain = build("exact")
    assert build({"type": "exact", "name": "other"}).digest == plain.digest
    assert build({"type": "exact", "strip": True}).digest == plain.digest
    others = [
        "includes",
        "numeric",
        "json_schema",
        {"type": "exact", "strip": False},
        {"type": "exact", "target": "a"},
        {"type": "regex", "pattern": "a"},
        {"type": "regex", "pattern": "a", "dotall": True},
        {"type": "json_schema", "schema": False},
    ]
    assert len({plain.digest, *(build(spec).digest for spec in others)}) == 9
    assert build({"type": "numeric", "target": 1}).digest == (
        build({"type": "numeric", "target": 1.0}).digest
    )


def test_text_scorers_need_no_sandbox_and_no_model() -> None:
    for kind in ("exact", "includes", "numeric", "json_schema"):
        scorer: Scorer = build(kind)
        assert (scorer.needs_sandbox, scorer.model, kind in KINDS) == (False, None, True)


class Broken:
    """A scorer whose sandbox cannot be had."""

    name, digest, needs_sandbox, model = "broken", "0" * 64, True, None

    def __init__(self, error: Exception) -> None:
        self._error = error

    def check(self, sample: Sample, path: str) -> None:
        pass

    async def score(self, *_: Any, **__: Any) -> Score:
        raise self._error


async def test_a_scorer_that_fails_scores_nothing_never_zero() -> None:
    score = await scored(Broken(LaunchError("no room")), submission("x"))
    assert (score.value, score.label) == (None, UNSCORED)
    assert score.explanation == "launch: no room"


@pytest.mark.parametrize("error", [StateError("disk full"), RuntimeError("a fault of ours")])
async def test_what_is_no_failure_of_a_scorer_is_not_swallowed(error: Exception) -> None:
    with pytest.raises(type(error)):
        await scored(Broken(error), submission("x"))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_score_is_a_finite_number_or_none(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        Score(scorer="x", digest="y", value=value)
    with pytest.raises(ValueError, match="not a score"):
        Score.from_json({"value": 1})
