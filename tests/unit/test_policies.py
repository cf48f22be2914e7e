"""Levels are consistent data: what they name exists, and a stronger one is never weaker."""

from __future__ import annotations

from typing import get_args

import attrs
import pytest

from sandbox_sdk.engine import limits
from sandbox_sdk.errors import IsolationError
from sandbox_sdk.isolation import remedies
from sandbox_sdk.isolation.walls.cgroups import Hierarchy
from sandbox_sdk.isolation.walls.syscalls import NUMBERS
from sandbox_sdk.policies import BUILT, HIGH, LEVELS, LOW, MEDIUM, WAIVABLE, Policy, policy
from sandbox_sdk.values import Limit, SandboxSpec, SecurityLevel

EVERY = pytest.mark.parametrize("rules", LEVELS.values(), ids=lambda rules: rules.level)
GROUP = Hierarchy(2, dict.fromkeys(("memory", "cpu", "pids"), "/sys/fs/cgroup/x"))


def named_calls(rules: Policy) -> set[str]:
    return {
        *(rules.allowed_calls or ()),
        *rules.refused_calls,
        *rules.uncounted_calls,
        *rules.self_only_calls,
        *rules.tried_calls,
    }


def refused_calls(rules: Policy) -> set[str]:
    """What fails whatever its arguments."""
    if rules.allowed_calls is None:
        return set(rules.refused_calls)
    return set(NUMBERS["x86_64"]) - set(rules.allowed_calls)


@EVERY
def test_every_call_that_a_level_names_has_a_number(rules: Policy) -> None:
    """A policy can name no call that the filter would silently leave out."""
    for name in named_calls(rules):
        assert any(numbers[name] is not None for numbers in NUMBERS.values()), name


@EVERY
def test_what_is_tried_from_inside_is_refused(rules: Policy) -> None:
    assert set(rules.tried_calls) <= refused_calls(rules)


def test_an_allow_list_names_nothing_twice_and_holds_what_has_rules_of_its_own() -> None:
    """Else a rule about arguments would stand before a call that is refused anyway."""
    assert HIGH.allowed_calls is not None
    assert len(HIGH.allowed_calls) == len(set(HIGH.allowed_calls))
    assert {"clone", "ioctl", "socket", "socketpair"} <= set(HIGH.allowed_calls)
    assert set(HIGH.self_only_calls) <= set(HIGH.allowed_calls)
    assert not set(HIGH.refused_calls) & set(HIGH.allowed_calls)


@pytest.mark.parametrize("weaker", [LOW, MEDIUM], ids=lambda rules: rules.level)
def test_high_allows_no_more_than_a_weaker_level(weaker: Policy) -> None:
    """But what another of its walls holds: ``low`` refuses what only a namespace contains."""
    outsiders = refused_calls(LOW) - refused_calls(MEDIUM)
    assert refused_calls(weaker) - outsiders <= refused_calls(HIGH)
    assert weaker.refused_clone_flags & ~HIGH.refused_clone_flags == 0
    assert set(weaker.refused_ioctls) <= set(HIGH.refused_ioctls)


def test_high_has_every_wall_of_medium_and_a_smaller_set_of_families() -> None:
    assert set(MEDIUM.walls) < set(HIGH.walls)
    assert set(HIGH.socket_families) < set(MEDIUM.socket_families)
    assert HIGH.default_template == "python"
    assert HIGH.workspace == "tmpfs"


def test_low_promises_no_namespace_and_has_no_socket() -> None:
    assert not LOW.namespaces
    assert not any(wall.endswith("_namespace") for wall in LOW.walls)
    assert LOW.socket_families == ()
    assert "landlock" in LOW.walls


@EVERY
def test_only_what_a_level_requires_can_be_waived(rules: Policy) -> None:
    assert set(rules.waivable) <= {*rules.walls, *rules.required_limits}
    assert set(rules.waivable) <= WAIVABLE.keys()
    assert "seccomp" not in rules.waivable


def test_every_waiver_is_of_use_and_says_why_it_may_be() -> None:
    assert set(WAIVABLE) == {name for rules in LEVELS.values() for name in rules.waivable}
    assert all(WAIVABLE.values())


def test_a_level_is_given_if_a_runtime_keeps_it_and_else_refused_with_what_is_missing() -> None:
    levels: tuple[SecurityLevel, ...] = get_args(SecurityLevel)
    assert SandboxSpec(name="x").security_level in BUILT
    assert set(levels) - BUILT >= {"maximum", "unsafe"}
    for level in levels:
        if level in BUILT:
            assert policy(level) is LEVELS[level]
            continue
        with pytest.raises(IsolationError, match=f'level "{level}" is refused.*: .+') as caught:
            policy(level)
        assert caught.value.level == level


def held(hierarchy: Hierarchy | None, *, disk: str = "mount") -> tuple[Limit, ...]:
    found = limits.held(
        SandboxSpec(name="x"), hierarchy, "/sys/fs/cgroup is read-only", in_memory=disk == "mount"
    )
    return tuple(
        Limit(name="disk", value=limit.value, held_by=disk) if limit.name == "disk" else limit
        for limit in found
    )


def test_high_takes_what_the_kernel_holds() -> None:
    assert limits.require(HIGH, held(GROUP), ()) == ()
    assert limits.require(MEDIUM, held(None, disk="watchdog"), ()) == ()


def test_high_refuses_each_limit_that_only_a_watchdog_holds() -> None:
    """The message names each, why it is not held, and the fix."""
    with pytest.raises(IsolationError) as caught:
        limits.require(HIGH, held(None, disk="watchdog"), ())
    assert [wall.name for wall in caught.value.walls] == ["memory", "cpu", "pids", "disk"]
    assert caught.value.message.count("/sys/fs/cgroup is read-only") == 2
    assert caught.value.message.count(remedies.group_fix()) == 1, "one fix for all of them"
    assert "waive=('memory', 'cpu', 'pids', 'disk')" in caught.value.message
    assert all(wall.fix and "held by" in wall.detail for wall in caught.value.walls)


def test_a_waived_limit_is_returned_and_the_rest_still_refused() -> None:
    assert limits.require(HIGH, held(GROUP, disk="watchdog"), ("disk", "landlock")) == ("disk",)
    assert limits.require(HIGH, held(GROUP), ("disk",)) == ()
    with pytest.raises(IsolationError) as caught:
        limits.require(HIGH, held(None), ("memory", "pids"))
    assert [wall.name for wall in caught.value.walls] == ["cpu"]


def test_what_a_level_does_not_let_waive_is_not() -> None:
    with pytest.raises(IsolationError):
        limits.require(attrs.evolve(HIGH, waivable=()), held(None), HIGH.waivable)
