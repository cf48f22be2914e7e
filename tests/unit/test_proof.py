"""A wall that does not stand is refused by name, or goes ahead under its waiver and says so."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from sandbox_sdk.engine import proof
from sandbox_sdk.errors import IsolationError, ProtocolError
from sandbox_sdk.isolation.walls import capabilities, namespaces
from sandbox_sdk.policies import HIGH, LEVELS, LOW, MEDIUM, Policy
from sandbox_sdk.values import Wall

UID = 7_000_001
ENV = frozenset({"PWD", "LC_CTYPE"})

Hello = dict[str, Any]


def hello() -> Hello:
    """What an agent finds where every wall of every level stands."""
    status = dict.fromkeys(capabilities.FIELDS, "0000000000000000")
    return {
        "status": {**status, "NoNewPrivs": "1", "Seccomp": "2"},
        "namespaces": dict.fromkeys(namespaces.NAMES, 1),
        "interfaces": ["lo"],
        "environ": ["PWD"],
        "ahead": False,
        "descriptors": [0, 1, 2, 3],
        "refused_calls": {
            call: errno.EPERM for policy in LEVELS.values() for call in policy.tried_calls
        },
        "user_namespace": errno.EPERM,
        "sockets": dict.fromkeys(
            ("AF_UNIX", "AF_INET", "AF_NETLINK", "AF_VSOCK"), errno.EAFNOSUPPORT
        ),
        "sealed_files": {"/proc/sys/kernel/core_pattern": errno.EACCES},
        "writable": [],
        "processes": [1],
        "landlock": errno.EACCES,
        "outside_signal": errno.EPERM,
        "dumpable": 0,
    }


def host_namespace(name: str) -> Callable[[Hello], None]:
    def open_it(hello: Hello) -> None:
        hello["namespaces"][name] = namespaces.inodes()[name]

    return open_it


def changed(*path: str, value: object) -> Callable[[Hello], None]:
    def open_it(hello: Hello) -> None:
        at = hello
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = value

    return open_it


OPENED: list[tuple[str, Callable[[Hello], None]]] = [
    *((f"{name}_namespace", host_namespace(name)) for name in namespaces.NAMES),
    ("net_namespace", changed("interfaces", value=["lo", "eth0"])),
    ("pid_namespace", changed("processes", value=[1, 2])),
    ("no_nested_user_namespaces", changed("user_namespace", value=0)),
    *(
        ("capabilities", changed("status", name, value="0000000000000400"))
        for name in capabilities.FIELDS
    ),
    ("no_new_privileges", changed("status", "NoNewPrivs", value="0")),
    ("seccomp", changed("status", "Seccomp", value="0")),
    ("seccomp", changed("refused_calls", "bpf", value=0)),
    ("seccomp", changed("refused_calls", "keyctl", value=errno.EINVAL)),
    ("socket_families", changed("sockets", "AF_VSOCK", value=0)),
    # No device is no wall: another host of the same rules may have one.
    ("socket_families", changed("sockets", "AF_VSOCK", value=errno.ENODEV)),
    ("read_only_root", changed("writable", value=["/usr"])),
    ("sealed_proc", changed("sealed_files", "/proc/sysrq-trigger", value=0)),
    ("empty_environment", changed("environ", value=["SANDBOX_API_KEY"])),
    ("no_inherited_descriptors", changed("descriptors", value=[0, 1, 2, 3, 9])),
    ("untraceable_agent", changed("dumpable", value=1)),
    ("landlock", changed("landlock", value=0)),
    # Refused by another wall, or by nothing being there, is not proven of Landlock.
    ("landlock", changed("landlock", value=errno.EROFS)),
    ("landlock", changed("landlock", value=errno.ENOENT)),
    ("outside_signals", changed("outside_signal", value=0)),
]
ONLY_AT: dict[str, list[tuple[str, Callable[[Hello], None]]]] = {
    "low": [
        ("socket_families", changed("sockets", "AF_UNIX", value=0)),
        ("socket_families", changed("sockets", "AF_INET", value=0)),
        ("seccomp", changed("refused_calls", "shmget", value=errno.ENOENT)),
    ],
    "medium": [],
    "high": [
        ("socket_families", changed("sockets", "AF_NETLINK", value=0)),
        ("seccomp", changed("refused_calls", "ptrace", value=errno.ESRCH)),
        ("seccomp", changed("refused_calls", "personality", value=0)),
    ],
}
MISSING = [
    (policy, wall, open_it)
    for policy in LEVELS.values()
    for wall, open_it in (*OPENED, *ONLY_AT[policy.level])
    if wall in policy.walls
]


def prove(
    policy: Policy, said: Hello, *, host_uid: int = UID, waive: tuple[str, ...] = ()
) -> dict[str, Wall]:
    walls = proof.prove(policy, said, host_uid=host_uid, allowed_env=ENV, waive=waive)
    assert tuple(wall.name for wall in walls) == policy.walls
    return {wall.name: wall for wall in walls}


def refusal(policy: Policy, said: Hello, **how: Any) -> IsolationError:
    with pytest.raises(IsolationError) as caught:
        prove(policy, said, **how)
    assert caught.value.level == policy.level
    return caught.value


@pytest.mark.parametrize("policy", LEVELS.values(), ids=lambda policy: policy.level)
def test_all_walls_of_a_level_are_proven(policy: Policy) -> None:
    assert all(wall.in_force and wall.detail for wall in prove(policy, hello()).values())


@pytest.mark.parametrize(
    ("policy", "wall", "open_it"), MISSING, ids=[f"{case[0].level}-{case[1]}" for case in MISSING]
)
def test_a_missing_wall_is_refused_by_name_and_can_be_waived_where_the_level_allows(
    policy: Policy, wall: str, open_it: Callable[[Hello], None]
) -> None:
    said = hello()
    open_it(said)
    error = refusal(policy, said)
    assert [missing.name for missing in error.walls] == [wall]
    assert all(missing.detail and missing.fix for missing in error.walls)
    assert f"{wall}: {error.walls[0].detail}. To mend it: {error.walls[0].fix}" in error.message
    if wall in policy.waivable:
        walls = prove(policy, said, waive=(wall,))
        assert [found.name for found in walls.values() if not found.in_force] == [wall]
        assert walls[wall].detail.startswith("waived; ")
        assert f'waive=("{wall}",)' in error.message
    else:
        assert [each.name for each in refusal(policy, said, waive=(wall,)).walls] == [wall]
        assert "waive" not in error.message


def test_every_wall_of_every_level_is_opened_in_turn() -> None:
    opened = {(policy.level, wall) for policy, wall, _ in MISSING}
    uids = {(policy.level, "unprivileged_uid") for policy in LEVELS.values()}
    every = {(policy.level, wall) for policy in LEVELS.values() for wall in policy.walls}
    assert opened | uids | {("high", "own_uid")} == every


@pytest.mark.parametrize("policy", LEVELS.values(), ids=lambda policy: policy.level)
def test_host_uid_0_is_refused_and_no_waiver_helps(policy: Policy) -> None:
    error = refusal(policy, hello(), host_uid=0, waive=("unprivileged_uid", "own_uid"))
    assert [wall.name for wall in error.walls] == ["unprivileged_uid"]


def test_a_uid_of_its_own_or_a_user_namespace_of_its_own_is_enough() -> None:
    """A plain user has one uid for all, so there the namespace must tell sandboxes apart."""
    shared = hello()
    host_namespace("user")(shared)
    policy = attrs.evolve(HIGH, walls=("own_uid",))
    assert prove(policy, hello(), host_uid=os.geteuid())["own_uid"].in_force
    assert prove(policy, shared, host_uid=UID)["own_uid"].in_force
    assert [wall.name for wall in refusal(policy, shared, host_uid=0).walls] == ["own_uid"]
    assert not prove(policy, shared, host_uid=0, waive=("own_uid",))["own_uid"].in_force


def test_all_missing_walls_come_at_once() -> None:
    said = hello()
    changed("dumpable", value=1)(said)
    changed("landlock", value=0)(said)
    assert [wall.name for wall in refusal(HIGH, said).walls] == ["untraceable_agent", "landlock"]


def test_a_waiver_of_what_stands_changes_nothing() -> None:
    assert prove(HIGH, hello(), waive=("landlock", "own_uid")) == prove(HIGH, hello())


@pytest.mark.parametrize("key", sorted(hello()))
def test_a_report_that_lacks_something_proves_nothing(key: str) -> None:
    said = hello()
    del said[key]
    with pytest.raises(ProtocolError, match=key):
        prove(LOW if key == "outside_signal" else HIGH, said)


def test_a_call_that_was_not_tried_is_not_proven() -> None:
    said = hello()
    del said["refused_calls"]["bpf"]
    with pytest.raises(ProtocolError, match="bpf"):
        prove(MEDIUM, said)


def test_a_level_does_not_ask_for_walls_of_another() -> None:
    """``low`` has no namespaces to show, ``medium`` needs no Landlock."""
    said = hello()
    for name in namespaces.NAMES:
        host_namespace(name)(said)
    prove(LOW, said)
    said = hello()
    del said["landlock"], said["outside_signal"]
    prove(MEDIUM, said)
