"""The kernel's classic BPF, as far as seccomp filters use it: run it, and print it.

Run as a program it writes the golden files: ``python tests/unit/bpf.py``.
Source: Documentation/networking/filter.rst, Documentation/userspace-api/seccomp_filter.rst.
"""

from __future__ import annotations

import operator
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from sandbox_sdk.isolation import filters
from sandbox_sdk.isolation.walls.syscalls import NUMBERS
from sandbox_sdk.policies import LEVELS, Policy

GOLDEN = Path(__file__).parent.parent / "golden"
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
LOAD, AND, JUMP, RETURN = 0x20, 0x54, 0x05, 0x06
EQUAL, AT_LEAST, GREATER = 0x15, 0x35, 0x25
COMPARISONS = {EQUAL: operator.eq, AT_LEAST: operator.ge, GREATER: operator.gt}
MOST_INSTRUCTIONS = 4096
WORDS = {0x80000000: "kill process", 0x7FFF0000: "allow"}


@attrs.frozen
class Instruction:
    """One ``struct sock_filter``."""

    code: int
    yes: int
    no: int
    value: int


@attrs.frozen
class Call:
    """One system call as a filter sees it: ``struct seccomp_data``."""

    number: int
    architecture: int
    arguments: Sequence[int]

    def word(self, offset: int) -> int:
        """Return the 32 bits at an offset, as a filter loads them."""
        data = struct.pack("<iIQ6Q", self.number, self.architecture, 0, *self.arguments)
        assert offset % 4 == 0
        assert offset + 4 <= len(data)
        word: int = struct.unpack_from("<I", data, offset)[0]
        return word


def parse(program: bytes) -> list[Instruction]:
    """Return a compiled filter's instructions, checked as the kernel checks them."""
    size = struct.calcsize("=HBBI")
    assert len(program) % size == 0
    found = [Instruction(*struct.unpack_from("=HBBI", program, at))
             for at in range(0, len(program), size)]  # fmt: skip
    assert 0 < len(found) <= MOST_INSTRUCTIONS
    assert found[-1].code == RETURN
    for at, each in enumerate(found):
        assert each.code in (LOAD, AND, JUMP, RETURN, *COMPARISONS)
        farthest = each.value if each.code == JUMP else max(each.yes, each.no)
        assert at + 1 + farthest < len(found) or each.code == RETURN
    return found


@attrs.frozen
class Decision:
    """What a filter did with a system call.

    Attributes:
        action: The action.
        steps: How many instructions ran.
    """

    action: int
    steps: int


def decide(program: bytes, call: Call) -> int:
    """Run a filter on a system call and return its action."""
    return run(parse(program), call).action


def run(instructions: Sequence[Instruction], call: Call) -> Decision:
    """Run a parsed filter on a system call."""
    at = accumulator = steps = 0
    while True:
        each = instructions[at]
        at += 1
        steps += 1
        if each.code == RETURN:
            return Decision(each.value, steps)
        if each.code == LOAD:
            accumulator = call.word(each.value)
        elif each.code == AND:
            accumulator &= each.value
        elif each.code == JUMP:
            at += each.value
        else:
            at += each.yes if COMPARISONS[each.code](accumulator, each.value) else each.no


def listing(program: bytes, machine: str) -> Iterator[str]:
    """Yield a filter as lines of text, system calls by name."""
    names = {number: name for name, number in NUMBERS[machine].items() if number is not None}
    loaded = {0: 0}  # instruction -> the offset of what is loaded there
    for at, each in enumerate(parse(program)):
        word = loaded.get(at, 0)
        after = [at + 1]
        if each.code == LOAD:
            word = each.value
            what = {0: "call", 4: "architecture"}.get(word, f"argument {(word - 16) // 8}")
            text = f"load {what}"
        elif each.code == AND:
            text = f"and {each.value:#x}"
        elif each.code == JUMP:
            after = [at + 1 + each.value]
            text = f"go to {after[0]}"
        elif each.code == RETURN:
            after = []
            text = f"return {WORDS.get(each.value, f'errno {each.value & 0xFFFF}')}"
        else:
            after = [at + 1 + each.yes, at + 1 + each.no]
            sign = "==" if each.code == EQUAL else ">="
            shown = names.get(each.value, hex(each.value)) if word == 0 else hex(each.value)
            text = f"if {sign} {shown}: {after[0]} else {after[1]}"
        loaded.update(dict.fromkeys(after, word))
        yield f"{at:4}  {text}"


def golden(policy: Policy, machine: str) -> Path:
    """Return the file that holds a level's filter as it was reviewed."""
    return GOLDEN / f"seccomp_{policy.level}_{machine}.txt"


def shown(policy: Policy, machine: str) -> str:
    """Return the filter of a level as text."""
    return "\n".join(listing(filters.build(policy, machine), machine)) + "\n"


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for policy in LEVELS.values():
        for machine in ARCHITECTURES:
            golden(policy, machine).write_text(shown(policy, machine))
