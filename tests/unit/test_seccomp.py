"""Filters decide as their rules say, on numbers that are the kernel's."""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import socket
import subprocess
import sys
from collections.abc import Sequence

import pytest
from bpf import ARCHITECTURES, GOLDEN, Call, decide, medium
from hypothesis import given
from hypothesis import strategies as st

from sandbox_sdk.isolation import filters
from sandbox_sdk.isolation.walls import kernel, seccomp
from sandbox_sdk.isolation.walls.seccomp import Condition, Rule
from sandbox_sdk.isolation.walls.syscalls import NUMBERS
from sandbox_sdk.policies import MEDIUM

MACHINES = sorted(ARCHITECTURES)
X32 = 0x40000000
LOW = 0xFFFFFFFF
NEWER_THAN_LIBSECCOMP = 450

small = st.integers(0, 3)
words = st.one_of(small, st.integers(0, LOW))
arguments = st.lists(
    st.one_of(small, st.builds(lambda low, high: low | high << 32, words, words)),
    min_size=6,
    max_size=6,
)
conditions = st.builds(
    Condition,
    st.integers(0, 5),
    words,
    st.one_of(st.just(LOW), words),
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
    masked = arguments[condition.argument] & LOW & condition.mask
    return masked != 0 if condition.any_bit else masked == condition.value


def expected(rules: list[Rule], machine: str, call: Call) -> int:
    """Say what a filter does, by its documentation."""
    if call.architecture != ARCHITECTURES[machine]:
        return seccomp.KILL_PROCESS
    if machine == "x86_64" and call.number & LOW >= X32:
        return seccomp.KILL_PROCESS
    for rule in rules:
        number = NUMBERS[machine][rule.syscall]
        if number == call.number and all(holds(each, call.arguments) for each in rule.conditions):
            return rule.action
    return seccomp.ALLOW


@given(rules(), st.sampled_from(MACHINES), arguments, st.data())
def test_first_matching_rule_decides(
    rules: list[Rule], machine: str, arguments: list[int], data: st.DataObject
) -> None:
    """On every call, of every architecture, over the low 32 bits of each argument."""
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
    program = seccomp.compile_filter(rules, machine=machine)
    assert decide(program, call) == expected(rules, machine, call)


@pytest.mark.parametrize("machine", MACHINES)
def test_medium_is_what_was_reviewed(machine: str) -> None:
    """A change of the filter shows in review; if wanted, run ``python tests/unit/bpf.py``."""
    assert medium(machine) == (GOLDEN / f"seccomp_medium_{machine}.txt").read_text()


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


@pytest.mark.skipif(ctypes.util.find_library("seccomp") is None, reason="libseccomp is absent")
@pytest.mark.parametrize("machine", MACHINES)
def test_numbers_are_libseccomps(machine: str) -> None:
    """Every number is the one that libseccomp knows; it may not know the newest calls."""
    library = ctypes.CDLL(ctypes.util.find_library("seccomp"))
    resolve = library.seccomp_syscall_resolve_name_arch
    known = 0
    for name, number in NUMBERS[machine].items():
        told = resolve(ctypes.c_uint32(ARCHITECTURES[machine]), name.encode())
        if told >= 0:
            known += 1
            assert number == told, name
        else:  # unknown to it, or absent on this machine
            assert number is None or number >= NEWER_THAN_LIBSECCOMP, name
    assert known > 40


def test_every_refused_call_has_a_number() -> None:
    """A policy can name no call that the filter would silently leave out."""
    for name in MEDIUM.refused_calls:
        assert name in NUMBERS["x86_64"]
        assert any(NUMBERS[machine][name] is not None for machine in MACHINES)
    with pytest.raises(KeyError):
        seccomp.compile_filter([Rule("no_such_call", seccomp.ALLOW)], machine="x86_64")
    with pytest.raises(KeyError):
        seccomp.compile_filter([], machine="riscv64")


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
def test_the_kernel_takes_the_medium_filter() -> None:
    """The kernel loads it, and refuses by it what it did not refuse before."""
    program = filters.build(MEDIUM, kernel.MACHINE)
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
