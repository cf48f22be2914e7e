"""The kernel's classic BPF, as far as seccomp filters use it: run it, and print it.

Run as a program it writes the golden files: ``python tests/unit/bpf.py``.
Source: Documentation/networking/filter.rst, Documentation/userspace-api/seccomp_filter.rst.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from sandbox_sdk.isolation import filters
from sandbox_sdk.isolation.walls.syscalls import NUMBERS
from sandbox_sdk.policies import MEDIUM

GOLDEN = Path(__file__).parent.parent / "golden"
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
LOAD, AND, EQUAL, AT_LEAST, RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
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
        assert each.code in (LOAD, AND, EQUAL, AT_LEAST, RETURN)
        if each.code in (EQUAL, AT_LEAST):
            assert at + 1 + max(each.yes, each.no) < len(found)
    return found


def decide(program: bytes, call: Call) -> int:
    """Run a filter on a system call and return its action."""
    instructions = parse(program)
    at = accumulator = 0
    while True:
        each = instructions[at]
        at += 1
        if each.code == RETURN:
            return each.value
        if each.code == LOAD:
            accumulator = call.word(each.value)
        elif each.code == AND:
            accumulator &= each.value
        else:
            equal = each.code == EQUAL
            holds = accumulator == each.value if equal else accumulator >= each.value
            at += each.yes if holds else each.no


def listing(program: bytes, machine: str) -> Iterator[str]:
    """Yield a filter as lines of text, system calls by name."""
    names = {number: name for name, number in NUMBERS[machine].items() if number is not None}
    loaded = 0
    for at, each in enumerate(parse(program)):
        if each.code == LOAD:
            loaded = each.value
            what = {0: "call", 4: "architecture"}.get(loaded, f"argument {(loaded - 16) // 8}")
            yield f"{at:4}  load {what}"
        elif each.code == AND:
            yield f"{at:4}  and {each.value:#x}"
        elif each.code == RETURN:
            errno = f"errno {each.value & 0xFFFF}"
            yield f"{at:4}  return {WORDS.get(each.value, errno)}"
        else:
            sign = "==" if each.code == EQUAL else ">="
            shown = names.get(each.value, hex(each.value)) if loaded == 0 else hex(each.value)
            yield f"{at:4}  if {sign} {shown}: {at + 1 + each.yes} else {at + 1 + each.no}"


def medium(machine: str) -> str:
    """Return the filter of level medium as text."""
    return "\n".join(listing(filters.build(MEDIUM, machine), machine)) + "\n"


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for machine in ARCHITECTURES:
        (GOLDEN / f"seccomp_medium_{machine}.txt").write_text(medium(machine))
