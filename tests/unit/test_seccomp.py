"""Filters decide as their rules say, on numbers that are the kernel's."""

from __future__ import annotations

import errno
import itertools
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence

import libseccomp
import pytest
from bpf import ARCHITECTURES, Call, decide, golden, parse, run, shown
from hypothesis import given
from hypothesis import strategies as st

from sandbox_sdk.isolation import filters
from sandbox_sdk.isolation.walls import kernel, seccomp
from sandbox_sdk.isolation.walls.seccomp import Condition, Rule
from sandbox_sdk.isolation.walls.syscalls import NUMBERS
from sandbox_sdk.policies import HIGH, LEVELS, LOW, MEDIUM, Policy

MACHINES = sorted(ARCHITECTURES)
X32 = 0x40000000
WORD = 0xFFFFFFFF
NEWER_THAN_LIBSECCOMP = {"uretprobe", "uprobe"}
FIRST_NEWER_NUMBER = 451
EPERM, ENOSYS, EAFNOSUPPORT = map(
    seccomp.errno_action, (errno.EPERM, errno.ENOSYS, errno.EAFNOSUPPORT)
)

small = st.integers(0, 3)
words = st.one_of(small, st.integers(0, WORD))
arguments = st.lists(
    st.one_of(small, st.builds(lambda low, high: low | high << 32, words, words)),
    min_size=6,
    max_size=6,
)
conditions = st.builds(
    Condition,
    st.integers(0, 5),
    words,
    st.one_of(st.just(WORD), words),
    st.booleans(),
)


@st.composite
def rules(draw: st.DrawFn) -> list[Rule]:
    """Return rules over few system calls, so that several meet on one."""
    names = draw(st.lists(st.sampled_from(sorted(NUMBERS["x86_64"])), min_size=1, max_size=4))
    actions = st.sampled_from([seccomp.ALLOW, seccomp.errno_action(1), seccomp.errno_action(38)])
    made = st.builds(
        Rule, st.sampled_from(names), actions, st.lists(conditions, max_size=3).map(tuple)
    )
    return draw(st.lists(made, max_size=8))


def holds(condition: Condition, arguments: Sequence[int]) -> bool:
    """Say whether a condition holds, by its documentation."""
    masked = arguments[condition.argument] & WORD & condition.mask
    return masked != 0 if condition.any_bit else masked == condition.value


def expected(rules: list[Rule], machine: str, call: Call) -> int | None:
    """Say what a filter's rules do, by its documentation; ``None`` is what no rule decides."""
    if call.architecture != ARCHITECTURES[machine]:
        return seccomp.KILL_PROCESS
    if machine == "x86_64" and call.number & WORD >= X32:
        return seccomp.KILL_PROCESS
    for rule in rules:
        number = NUMBERS[machine][rule.syscall]
        if number == call.number and all(holds(each, call.arguments) for each in rule.conditions):
            return rule.action
    return None


@given(rules(), st.sampled_from(MACHINES), arguments, st.data())
def test_first_matching_rule_decides(
    rules: list[Rule], machine: str, arguments: list[int], data: st.DataObject
) -> None:
    """On every call, of every architecture, over the low 32 bits of each argument.

    Else a list of what is refused allows, and one of what is allowed tells calls that there are
    from those of a later kernel.
    """
    numbers = [number for rule in rules if (number := NUMBERS[machine][rule.syscall]) is not None]
    number = data.draw(
        st.one_of(
            st.sampled_from(numbers or [0]),
            st.sampled_from(numbers or [0]).map(lambda number: number | X32),
            st.integers(-(2**31), 2**31 - 1),
        )
    )
    architecture = data.draw(st.sampled_from([*ARCHITECTURES.values(), 0x40000003]))
    call = Call(number, architecture, arguments)
    wanted = expected(rules, machine, call)
    program = seccomp.compile_filter(rules, machine=machine)
    assert decide(program, call) == (seccomp.ALLOW if wanted is None else wanted)
    program = seccomp.compile_allow_list(rules, machine=machine, refused=EPERM, unknown=ENOSYS)
    known = number in NUMBERS[machine].values()
    assert decide(program, call) == (wanted or (EPERM if known else ENOSYS))


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("policy", LEVELS.values(), ids=lambda policy: policy.level)
def test_a_filter_is_what_was_reviewed(policy: Policy, machine: str) -> None:
    """A change of the filter shows in review; if wanted, run ``python tests/unit/bpf.py``."""
    assert shown(policy, machine) == golden(policy, machine).read_text()


def arguments_of(name: str) -> Iterator[tuple[int, ...]]:
    """Yield what a system call's decision may depend on, and high bits that must not matter."""
    firsts: Sequence[int] = (0, 1, 17, 0x10000000, 0x02000000, 0x7E020000, 1 << 32, WORD << 32)
    if name in ("socket", "socketpair"):
        firsts = [family | high for family in libseccomp.FAMILIES for high in (0, 1 << 32)]
    seconds = (0, 0x5401, 0x5412, 0x541C, 0x5412 | 1 << 32, 0x541C | 1 << 63)
    thirds = (0, libseccomp.PROTOCOLS[0], 12, libseccomp.PROTOCOLS[-1])
    for leading in itertools.product(firsts, seconds, thirds):
        yield (*leading, 0, 0, 0)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("policy", LEVELS.values(), ids=lambda policy: policy.level)
def test_a_filter_decides_as_libseccomps(policy: Policy, machine: str) -> None:
    """On every system call that it knows, and every argument that a rule reads."""
    ours = parse(filters.build(policy, machine))
    special, listed = map(parse, libseccomp.reference(policy, machine))
    conditional = {"clone", "ioctl", "socket", "socketpair", *policy.self_only_calls}
    decided = set[int]()
    for name in NUMBERS[machine]:
        if (number := libseccomp.number(name, machine)) is None:
            continue
        every = arguments_of(name) if name in conditional else iter([(0,) * 6, (WORD,) * 6])
        for arguments in every:
            call = Call(number, ARCHITECTURES[machine], arguments)
            wanted = run(special, call).action
            if wanted == seccomp.ALLOW:
                wanted = run(listed, call).action
            decided.add(wanted)
            assert run(ours, call).action == wanted, (name, arguments)
    assert decided == {seccomp.ALLOW, EPERM, ENOSYS, EAFNOSUPPORT}
    for foreign in (Call(0, 0x40000003, [0] * 6), Call(X32, ARCHITECTURES["x86_64"], [0] * 6)):
        if foreign.architecture != ARCHITECTURES[machine] or machine == "x86_64":
            assert run(ours, foreign).action == run(special, foreign).action
            assert run(ours, foreign).action == seccomp.KILL_PROCESS


@pytest.mark.parametrize("machine", MACHINES)
def test_an_allow_list_costs_few_instructions_and_knows_no_later_kernel(machine: str) -> None:
    """A search over some 380 numbers, where a chain of comparisons would take as many."""
    program = parse(filters.build(HIGH, machine))
    architecture = ARCHITECTURES[machine]
    conditional = {"clone", "ioctl", "socket", "socketpair", *HIGH.self_only_calls}
    numbers = {number: name for name, number in NUMBERS[machine].items() if number is not None}
    for number in range(max(numbers) + 100):
        decision = run(program, Call(number, architecture, [0] * 6))
        name = numbers.get(number)
        assert decision.steps <= (20 if name in conditional else 13)
        if name is None:
            assert decision.action == ENOSYS
        elif name not in {*(HIGH.allowed_calls or ()), *HIGH.refused_calls}:
            assert decision.action == EPERM


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("high", [0, 1 << 32, 1 << 63])
def test_medium_heeds_no_high_bits(machine: str, high: int) -> None:
    """Families, flags and requests are refused whatever stands above their 32 bits."""
    program = filters.build(MEDIUM, machine)

    def decided(name: str, *arguments: int) -> int:
        number = NUMBERS[machine][name]
        assert number is not None
        whole = [argument | high for argument in arguments]
        return decide(program, Call(number, ARCHITECTURES[machine], whole + [0] * (6 - len(whole))))

    refused, no_family = seccomp.errno_action(errno.EPERM), seccomp.errno_action(errno.EAFNOSUPPORT)
    for request in (0x5412, 0x541C):  # TIOCSTI, TIOCLINUX
        assert decided("ioctl", 0, request) == refused
    assert decided("ioctl", 0, 0x5401) == seccomp.ALLOW  # TCGETS, which isatty() makes
    for bit in range(32):
        namespace = 1 << bit & MEDIUM.refused_clone_flags
        assert decided("clone", 1 << bit) == (refused if namespace else seccomp.ALLOW)
    assert decided("clone", 17) == seccomp.ALLOW  # what fork() makes
    allowed = {family.number for family in MEDIUM.socket_families}
    for family in range(64):
        for call in ("socket", "socketpair"):
            decision = decided(call, family, socket.SOCK_STREAM, 0)
            assert decision == (seccomp.ALLOW if family in allowed else no_family)
    assert decided("socket", socket.AF_NETLINK, socket.SOCK_RAW, 12) == no_family  # nf_tables
    assert decided("clone3") == seccomp.errno_action(errno.ENOSYS)


@pytest.mark.parametrize("machine", MACHINES)
def test_low_has_no_socket_but_a_pair(machine: str) -> None:
    """Pairs are what event loops wake themselves by; they lead to nobody else."""
    program = filters.build(LOW, machine)
    for call, wanted in (("socket", EAFNOSUPPORT), ("socketpair", seccomp.ALLOW)):
        number = NUMBERS[machine][call]
        assert number is not None
        arguments = [socket.AF_UNIX, socket.SOCK_STREAM, 0, 0, 0, 0]
        assert decide(program, Call(number, ARCHITECTURES[machine], arguments)) == wanted


@pytest.mark.parametrize("machine", MACHINES)
def test_numbers_are_libseccomps(machine: str) -> None:
    """Every number is the one that libseccomp knows; it may not know the newest calls."""
    known = 0
    for name, number in NUMBERS[machine].items():
        told = libseccomp.number(name, machine)
        if told is not None:
            known += 1
            assert number == told, name
        else:  # unknown to it, or absent on this machine
            newer = number is not None and number >= FIRST_NEWER_NUMBER
            assert number is None or newer or name in NEWER_THAN_LIBSECCOMP, name
    assert known > 290


LOADED = """
import ctypes, os, socket, sys
program = sys.stdin.buffer.read()
libc = ctypes.CDLL(None, use_errno=True)
class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("program", ctypes.c_char_p)]
assert libc.prctl(38, 1, 0, 0, 0) == 0
loaded = libc.prctl(22, 2, ctypes.byref(Filter(len(program) // 8, program)), 0, 0)
assert loaded == 0, os.strerror(ctypes.get_errno())
try: socket.socket(40, socket.SOCK_STREAM)
except OSError as error: print(error.errno)
assert libc.unshare(0x10000000) == -1
print(ctypes.get_errno())
"""


@pytest.mark.skipif(kernel.MACHINE not in MACHINES, reason="no filter for this machine")
@pytest.mark.parametrize("policy", LEVELS.values(), ids=lambda policy: policy.level)
def test_the_kernel_takes_the_filter(policy: Policy) -> None:
    """The kernel loads it, and refuses by it what it did not refuse before."""
    program = filters.build(policy, kernel.MACHINE)
    done = subprocess.run(
        [sys.executable, "-c", LOADED], input=program, capture_output=True, check=True
    )
    assert list(map(int, done.stdout.split())) == [errno.EAFNOSUPPORT, errno.EPERM]


def test_a_rule_longer_than_a_jump_is_refused() -> None:
    """BPF jumps reach 255 instructions; what needs more is an error, not another filter."""
    most = tuple(Condition(0, number) for number in range(84))
    program = seccomp.compile_filter([Rule("ioctl", seccomp.ALLOW, most)], machine="x86_64")
    assert decide(program, Call(16, ARCHITECTURES["x86_64"], [1] * 6)) == seccomp.ALLOW
    many = (*most, Condition(0, 84))
    with pytest.raises(ValueError, match="longer than a BPF jump"):
        seccomp.compile_filter([Rule("ioctl", seccomp.ALLOW, many)], machine="x86_64")
