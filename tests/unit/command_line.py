"""The command line as its users run it: a program of its own."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import sys
import termios
from pathlib import Path

PROGRAM = (sys.executable, "-m", "sandbox_sdk")


def run(state: Path, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end, with pipes."""
    return subprocess.run(
        [*PROGRAM, "--state-dir", str(state), *arguments],
        input=stdin,
        capture_output=True,
        check=False,
    )


def start(state: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a command whose output can be read while it runs."""
    return subprocess.Popen(
        [*PROGRAM, "--state-dir", str(state), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def on_terminal(state: Path, *arguments: str) -> bytes:
    """Run a command on a terminal and return all that came to it."""
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [*PROGRAM, "--state-dir", str(state), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "200"},
    )
    os.close(theirs)
    came = b""
    try:
        while data := os.read(ours, 65536):
            came += data
    except OSError:  # how a terminal says that its last program has gone
        pass
    finally:
        os.close(ours)
    process.wait()
    return came


class Typist:
    """A command on a terminal that a test types on and looks at."""

    def __init__(self, state: Path, *arguments: str) -> None:
        self.terminal, theirs = os.openpty()
        self.process = subprocess.Popen(
            [*PROGRAM, "--state-dir", str(state), *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(theirs)
        self._seen = b""

    def wait_for(self, text: bytes) -> bytes:
        """Read until the text came; return all up to its end, which is then no more there."""
        while text not in self._seen:
            self._seen += os.read(self.terminal, 65536)
        before, _, self._seen = self._seen.partition(text)
        return before + text

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self.terminal, keys)

    def resize(self, columns: int, rows: int) -> None:
        """Change the terminal's size."""
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def flags(self) -> int:
        """Return the terminal's local modes."""
        flags: int = termios.tcgetattr(self.terminal)[3]
        return flags
