"""System call filters: rules compiled to the kernel's classic BPF.

A filter is a list of rules in order; the first whose system call and conditions match decides,
else the default does. A list of what is refused becomes a chain of comparisons, a list of what is
allowed a search by halves. Conditions compare the low 32 bits of an argument: the kernel itself
reads no more of a socket family or an ioctl number, so a comparison of all 64 can be walked around
by setting a high bit.

Source: seccomp(2); Documentation/userspace-api/seccomp_filter.rst.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator
from typing import NamedTuple

from sandbox_sdk.isolation.walls import kernel
from sandbox_sdk.isolation.walls.syscalls import NUMBERS

KILL_PROCESS = 0x80000000
ALLOW = 0x7FFF0000

_PR_SET_SECCOMP, _MODE_FILTER = 22, 2
_INSTRUCTION_BYTES = 8

_ERRNO = 0x00050000
_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_BIT = 0x40000000

# Offsets in struct seccomp_data; both machines are little-endian, so an argument's low half
# comes first.
_NUMBER, _MACHINE, _ARGUMENTS = 0, 4, 16

_LOAD, _JUMP, _JUMP_EQUAL, _JUMP_GREATER_EQUAL = 0x20, 0x05, 0x15, 0x35
_AND, _RETURN = 0x54, 0x06
_FARTHEST_JUMP = 255  # instructions; an unconditional jump reaches over any number
_MOST_CONDITIONS = 84  # three instructions each and two after them; a jump reaches over 255


def errno_action(number: int) -> int:
    """The action that makes a system call fail with an error number."""
    return _ERRNO | number


class Condition(NamedTuple):
    """Holds when ``argument & mask == value``, over the low 32 bits.

    With ``any_bit`` it holds when ``argument & mask`` is not 0.
    """

    argument: int
    value: int = 0
    mask: int = 0xFFFFFFFF
    any_bit: bool = False


class Rule(NamedTuple):
    """What happens at a system call when all conditions hold."""

    syscall: str
    action: int
    conditions: tuple[Condition, ...] = ()


def compile_filter(rules: list[Rule], *, machine: str, default: int = ALLOW) -> bytes:
    """Return the filter as ``struct sock_filter[]``, as ``bwrap --seccomp`` reads it.

    Calls of another architecture kill the process, x32 calls on x86_64 too. Rules for calls that
    this architecture does not have are left out.

    Raises:
        KeyError: The machine or a system call is unknown.
        ValueError: A rule has more conditions than a jump reaches over.
    """
    program = _prologue(machine)
    for number, rule in _numbered(rules, machine):
        body = _decision(rule)
        if rule.conditions:
            body.append(_instruction(_LOAD, _NUMBER))  # for the comparisons after a miss
        program.append(_instruction(_JUMP_EQUAL, number, no=len(body)))
        program.extend(body)
    program.append(_instruction(_RETURN, default))
    return b"".join(program)


def compile_allow_list(rules: list[Rule], *, machine: str, refused: int, unknown: int) -> bytes:
    """Return a filter in which what no rule names is refused.

    Args:
        rules: What is allowed, and exceptions before it.
        machine: The processor, in the kernel's word.
        refused: The action for calls that the kernel's table has.
        unknown: The action for numbers that it has not: calls of a later kernel, for which
            programs have a fallback only where they are told that there is no such call.

    Raises:
        KeyError: The machine or a system call is unknown.
        ValueError: A rule has more conditions than a jump reaches over.
    """
    decisions: dict[int, list[Rule]] = {}
    for number, rule in _numbered(rules, machine):
        decisions.setdefault(number, []).append(rule)
    for known in NUMBERS[machine].values():
        if known is not None:
            decisions.setdefault(known, [])
    # Where each range of numbers with one decision begins, and that decision.
    ranges: list[tuple[int, list[bytes]]] = []
    for number in range(max(decisions) + 2):
        body = [_instruction(_RETURN, unknown)]
        if number in decisions:
            body = _first_match(decisions[number], otherwise=refused)
        if not ranges or body != ranges[-1][1]:
            ranges.append((number, body))
    return b"".join([*_prologue(machine), *_search(ranges)])


def install(program: bytes) -> None:
    """Put this process, and all it starts, behind a compiled filter; needs no_new_privs.

    Raises:
        OSError: The kernel refused.
    """
    code = ctypes.create_string_buffer(program, len(program))
    pointer = ctypes.addressof(code)
    header = struct.pack("=H6xQ", len(program) // _INSTRUCTION_BYTES, pointer)
    kernel.check(
        kernel.libc.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_MODE_FILTER), header), "seccomp filter"
    )


def _prologue(machine: str) -> list[bytes]:
    """Kill what is not of this architecture, and load the call's number."""
    program = [
        _instruction(_LOAD, _MACHINE),
        _instruction(_JUMP_EQUAL, _ARCH[machine], yes=1),
        _instruction(_RETURN, KILL_PROCESS),
        _instruction(_LOAD, _NUMBER),
    ]
    if machine == "x86_64":
        program.append(_instruction(_JUMP_GREATER_EQUAL, _X32_BIT, no=1))
        program.append(_instruction(_RETURN, KILL_PROCESS))
    return program


def _numbered(rules: list[Rule], machine: str) -> Iterator[tuple[int, Rule]]:
    """Yield the rules that this machine has the call of, with its number."""
    numbers = NUMBERS[machine]
    for rule in rules:
        number = numbers[rule.syscall]
        if len(rule.conditions) > _MOST_CONDITIONS:
            raise ValueError(f"rule for {rule.syscall} is longer than a BPF jump")
        if number is not None:
            yield number, rule


def _search(ranges: list[tuple[int, list[bytes]]]) -> list[bytes]:
    """Find the range that the loaded number lies in, by halves."""
    if len(ranges) == 1:
        return ranges[0][1]
    middle = len(ranges) // 2
    lower, upper = _search(ranges[:middle]), _search(ranges[middle:])
    start = ranges[middle][0]
    if len(lower) <= _FARTHEST_JUMP:
        return [_instruction(_JUMP_GREATER_EQUAL, start, yes=len(lower)), *lower, *upper]
    far = _instruction(_JUMP, len(lower))
    return [_instruction(_JUMP_GREATER_EQUAL, start, no=1), far, *lower, *upper]


def _first_match(rules: list[Rule], *, otherwise: int) -> list[bytes]:
    """The decision about one system call; what follows a rule without conditions is unreachable."""
    body: list[bytes] = []
    for rule in rules:
        body.extend(_decision(rule))
        if not rule.conditions:
            return body
    return [*body, _instruction(_RETURN, otherwise)]


def _decision(rule: Rule) -> list[bytes]:
    """Take the rule's action if its conditions hold, else go on behind it."""
    checks: list[bytes] = []
    # Built from the end, for each check must know how far the miss lies behind it.
    for condition in reversed(rule.conditions):
        miss = len(checks) + 1
        load = [
            _instruction(_LOAD, _ARGUMENTS + 8 * condition.argument),
            _instruction(_AND, condition.mask),
        ]
        if condition.any_bit:
            jump = _instruction(_JUMP_EQUAL, 0, yes=miss)
        else:
            jump = _instruction(_JUMP_EQUAL, condition.value, no=miss)
        checks = [*load, jump, *checks]
    return [*checks, _instruction(_RETURN, rule.action)]


def _instruction(code: int, value: int, *, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("=HBBI", code, yes, no, value)
