"""System call filters: a few rules compiled to the kernel's classic BPF.

A filter is a list of rules in order; the first whose system call and conditions match decides,
else the default does. Conditions compare the low 32 bits of an argument: the kernel itself reads
no more of a socket family or an ioctl number, so a comparison of all 64 can be walked around by
setting a high bit.

Source: seccomp(2); Documentation/userspace-api/seccomp_filter.rst.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from sandbox_sdk.isolation.walls.syscalls import NUMBERS

KILL_PROCESS = 0x80000000
ALLOW = 0x7FFF0000

_ERRNO = 0x00050000
_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_BIT = 0x40000000

# Offsets in struct seccomp_data; both machines are little-endian, so an argument's low half
# comes first.
_NUMBER, _MACHINE, _ARGUMENTS = 0, 4, 16

_LOAD, _JUMP_EQUAL, _JUMP_GREATER_EQUAL, _AND, _RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
_MOST_CONDITIONS = 84  # three instructions each and two after them; a jump reaches over 255


def errno_action(number: int) -> int:
    """The action that makes a system call fail with an error number."""
    return _ERRNO | number


@dataclass(frozen=True)
class Condition:
    """Holds when ``argument & mask == value``, over the low 32 bits.

    With ``any_bit`` it holds when ``argument & mask`` is not 0.
    """

    argument: int
    value: int = 0
    mask: int = 0xFFFFFFFF
    any_bit: bool = False


@dataclass(frozen=True)
class Rule:
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
    numbers = NUMBERS[machine]
    program = [
        _instruction(_LOAD, _MACHINE),
        _instruction(_JUMP_EQUAL, _ARCH[machine], yes=1),
        _instruction(_RETURN, KILL_PROCESS),
        _instruction(_LOAD, _NUMBER),
    ]
    if machine == "x86_64":
        program.append(_instruction(_JUMP_GREATER_EQUAL, _X32_BIT, no=1))
        program.append(_instruction(_RETURN, KILL_PROCESS))
    for rule in rules:
        number = numbers[rule.syscall]
        if number is None:
            continue
        if len(rule.conditions) > _MOST_CONDITIONS:
            raise ValueError(f"rule for {rule.syscall} is longer than a BPF jump")
        body = _body(rule)
        program.append(_instruction(_JUMP_EQUAL, number, no=len(body)))
        program.extend(body)
    program.append(_instruction(_RETURN, default))
    return b"".join(program)


def _body(rule: Rule) -> list[bytes]:
    """The instructions after the number matched: conditions, the action, a reload on a miss."""
    if not rule.conditions:
        return [_instruction(_RETURN, rule.action)]
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
    return [*checks, _instruction(_RETURN, rule.action), _instruction(_LOAD, _NUMBER)]


def _instruction(code: int, value: int, *, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("=HBBI", code, yes, no, value)
