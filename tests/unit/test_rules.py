"""Rules are read whole or not at all, add up, and are read again when a file changes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sandbox_sdk.config import Settings
from sandbox_sdk.errors import ConfigError
from sandbox_sdk.rule_texts import parse_rules
from sandbox_sdk.rulebook import Rulebook
from sandbox_sdk.rules import Rule


def write(path: Path, text: str, *, age: int = 0) -> None:
    """Write a file whose time of change is told apart from what it was."""
    path.write_text(text)
    at = path.stat().st_mtime_ns + age * 1_000_000_000
    os.utime(path, ns=(at, at))


def test_a_rule_says_everything_a_rule_can() -> None:
    (rule,) = parse_rules(
        [
            {
                "name": "students",
                "metadata": {"course": "cs-*"},
                "clients": ["uid 10*"],
                "minimum_level": "high",
                "templates": ["python", "course-*"],
                "runtimes": "zygote",
                "maximum": {"memory": "2GiB", "cpu": 1.5},
                "lifetime": 600,
                "concurrency": 4,
                "cost": "2.50",
                "require": ["audit", "encryption"],
            }
        ],
        "policies",
        "a file",
    )
    assert rule.maximum == {
        "memory": 2 * 1024**3,
        "cpu": 1.5,
    }
    assert (rule.lifetime, rule.concurrency, str(rule.cost)) == (600, 4, "2.5")
    assert rule.is_about({"course": "cs-101", "more": "x"}, "uid 1000")
    assert not rule.is_about({"course": "art"}, "uid 1000")
    assert not rule.is_about({}, "uid 1000")
    assert not rule.is_about({"course": "cs-101"}, "uid 2000")


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as raised:
        parse_rules(
            [
                {"name": "a", "minimum_levl": "high"},
                {"minimum_level": "hihg"},
                {"name": "b", "maximum": {"memory": "much", "ram": 1}},
                {"name": "b b", "lifetime": -1},
                {"name": "c"},
                {"name": "d", "templates": []},
                {"name": "e", "require": ["luck"]},
            ],
            "policies",
            "a file",
        )
    told = [fault.partition(": ")[0] for fault in raised.value.faults]
    assert told == [
        "policies[0].minimum_levl",
        "policies[1]",
        "policies[1].minimum_level",
        "policies[2].maximum.memory",
        "policies[2].maximum.ram",
        "policies[3].name",
        "policies[3].lifetime",
        "policies[4]",
        "policies[5].templates",
        "policies[6].require[0]",
    ]


def test_two_rules_of_a_source_have_names_of_their_own() -> None:
    rule = {"name": "same", "minimum_level": "high"}
    with pytest.raises(ConfigError, match='two rules are named "same"'):
        parse_rules([rule, rule], "policies", "a file")


def test_rules_of_all_sources_add_up(tmp_path: Path) -> None:
    """Where any other setting of an argument replaces the file's, a rule joins it."""
    config = tmp_path / "config.yaml"
    config.write_text("policies:\n  - {name: file, minimum_level: medium}\n")
    settings = Settings.load(
        config={"policies": [{"name": "argument", "minimum_level": "low"}]},
        environ={"SANDBOX_CONFIG": str(config)},
    )
    host = tmp_path / "policies.yaml"
    host.write_text("policies:\n  - {name: host, runtimes: [zygote]}\n")
    book = Rulebook(settings.rules, config=settings.rules_file, host=host)
    assert [rule.name for rule in book.read()] == ["host", "file", "argument"]
    assert [rule.source for rule in book.read()] == [str(host), str(config), "the argument config"]


def test_a_changed_file_is_read_again_and_a_broken_one_keeps_its_rules(tmp_path: Path) -> None:
    host = tmp_path / "policies.yaml"
    book = Rulebook((), host=host)
    assert book.read() == ()
    write(host, "policies:\n  - {name: one, minimum_level: high}\n", age=1)
    assert [rule.name for rule in book.read()] == ["one"]
    write(host, "policies:\n  - {name: one, minimum_level: hihg}\n", age=2)
    assert [rule.name for rule in book.read()] == ["one"]
    with pytest.raises(ConfigError, match="no security level"):
        book.check()
    write(host, "policies:\n  - {name: two, minimum_level: high}\n", age=3)
    assert [rule.name for rule in book.read()] == ["two"]
    book.check()
    host.unlink()
    assert book.read() == ()
    book.check()


def test_the_host_file_holds_rules_only(tmp_path: Path) -> None:
    host = tmp_path / "policies.yaml"
    host.write_text("polices:\n  - {name: one, minimum_level: high}\n")
    with pytest.raises(ConfigError, match="holds polices, and may hold policies only"):
        Rulebook((), host=host)


def test_a_denial_names_rule_reason_and_source() -> None:
    denial = Rule(name="students", source="/etc/x").denied("no more")
    assert denial.rule == "students"
    assert str(denial) == 'rule "students" (/etc/x) does not allow it: no more'
