"""``policy`` prints what a level is made of, so that people and ``diff`` can read it."""

from __future__ import annotations

import json

import pytest
from bpf import GOLDEN
from click.testing import CliRunner, Result

from sandbox_sdk.cli.app import app
from sandbox_sdk.cli.policy import describe
from sandbox_sdk.policies import BUILT, LEVELS, Policy

EVERY = pytest.mark.parametrize("rules", LEVELS.values(), ids=lambda rules: rules.level)


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["policy", *arguments])


@EVERY
def test_the_rules_of_a_level_are_what_was_reviewed(rules: Policy) -> None:
    """If the change is wanted: ``sandbox-sdk policy LEVEL > tests/golden/policy_LEVEL.txt``."""
    done = invoke(rules.level)
    assert done.exit_code == 0
    assert done.stdout == (GOLDEN / f"policy_{rules.level}.txt").read_text()
    assert ("not offered" in done.stderr) == (rules.level not in BUILT)


@EVERY
def test_the_rules_are_the_same_as_json(rules: Policy) -> None:
    document = json.loads(invoke(rules.level, "--json").stdout)
    assert document["level"] == rules.level
    assert document["offered"] == (rules.level in BUILT)
    assert document["rules"] == describe(rules)


@EVERY
def test_every_line_of_a_section_is_sorted_and_no_rule_is_left_out(rules: Policy) -> None:
    described = describe(rules)
    assert all(lines == sorted(lines) for lines in described.values())
    assert len(described["system call refused"]) == len(rules.refused_calls)
    assert len(described["ioctl refused"]) == len(rules.refused_ioctls)
    assert len(described["clone flag refused"]) == rules.refused_clone_flags.bit_count()
    assert described["socket family"] != ["none"] or not rules.socket_families


def test_a_level_without_rules_is_refused_and_an_unknown_word_is_no_level() -> None:
    done = invoke("maximum")
    assert done.exit_code == 1
    assert "gVisor" in done.stderr
    assert invoke("hihg").exit_code == 2
