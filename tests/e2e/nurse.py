"""Start a program and stay: what it leaves behind becomes this process's children.

Usage: ``python nurse.py PROGRAM [ARGUMENT ...]``. So a test can find every orphan, and finds none
of anybody else. Tells the program's process id first, and ends at the end of standard input.
"""

from __future__ import annotations

import os
import subprocess
import sys

from sandbox_sdk.isolation.walls import kernel


def main(words: list[str]) -> None:
    """Start the program, then wait for the test to let go."""
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    program = subprocess.Popen(words, stdin=subprocess.DEVNULL)
    os.write(1, f"{program.pid}\n".encode())
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1:])
