"""Attack sandboxes of every kind, those of others included, and print which attack is open where.

Each column runs the same programs of ``tests/attacks/programs`` on the same host, in one run.
``--write`` replaces this user's table in ``docs/attacks.md``, which has one of root and one of a
plain user. As root, what is not ours runs as ``nobody``.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import anyio
from anyio.to_thread import run_sync
from attack_rows import ATTACKS, Attack, Told
from attacking import KINDS, PROGRAMS, Kind
from bait import KEY, Bait, laid
from host import GROUPS, ROOT, running, soon, told

from sandbox_sdk import AsyncSandboxClient

PAGE = Path(__file__).resolve().parent.parent / "docs" / "attacks.md"
USER = "root" if ROOT else "a plain user"
BEGIN, END = f"<!-- table of {USER}: begin -->", f"<!-- table of {USER}: end -->"
RESOURCES = {"memory": "256MiB", "pids": 64, "disk": "16MiB"}
SECONDS = 30
PYTHON = "/usr/bin/python3" if ROOT else sys.executable
ATTACKER = pwd.getpwnam("nobody").pw_uid if ROOT else os.geteuid()

Run = Callable[[Attack, Bait], Told]
Wrap = Callable[[Path], list[str]]
"""A folder that the attacker may write to -> the words before the program."""


def bare(work: Path) -> list[str]:
    """Return nothing: a plain process."""
    return []


def bubblewrap(work: Path) -> list[str]:
    """Return bwrap with all namespaces and the root read-only."""
    view = ["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--bind", work, work]
    return ["bwrap", *map(str, view), "--unshare-all", "--chdir", str(work), "--"]


def nsjail(work: Path) -> list[str]:
    """Return nsjail with its defaults and the root read-only."""
    view = ["--chroot", "/", "--cwd", work, "--bindmount", work]
    return ["nsjail", "-Mo", "--quiet", *map(str, view), "--"]


def srt(work: Path) -> list[str]:
    """Return srt with its defaults, and a folder that may be written to."""
    settings = work.parent / "srt-settings.json"
    settings.write_text(
        '{"network": {"allowedDomains": [], "deniedDomains": []}, '
        f'"filesystem": {{"denyRead": [], "allowWrite": ["{work}"], "denyWrite": []}}}}'
    )
    return ["srt", "--settings", str(settings)]


OTHERS: dict[str, Wrap] = {
    "no sandbox": bare,
    "`bwrap --unshare-all`": bubblewrap,
    "nsjail": nsjail,
    "srt": srt,
}


def other(wrap: Wrap, folder: Path) -> Run:
    """Return what runs an attack under a program of others, as a plain user."""
    work = folder / wrap.__name__
    work.mkdir()
    for program in PROGRAMS.glob("*.py"):
        shutil.copy(program, work)
    os.chown(work, ATTACKER, -1)

    def run(attack: Attack, bait: Bait) -> Told:
        script, words = work / f"{attack.program}.py", map(str, attack.arguments(bait))
        log = work / "log"
        log.write_text("")
        os.chown(log, ATTACKER, -1)
        with log.open("a") as output, contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(
                [*wrap(work), PYTHON, str(script), *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.DEVNULL,
                cwd=work,
                env={"PATH": os.environ["PATH"], "HOME": str(work), "OPENAI_API_KEY": KEY},
                pass_fds=[bait.descriptor],
                user=ATTACKER,
                extra_groups=[] if ROOT else None,
                start_new_session=True,
                timeout=SECONDS,
                check=False,
            )
        return _last_words(log.read_text())

    return run


async def ours(kind: Kind, folder: Path, bait: Bait) -> list[Told]:
    """Run every attack in a sandbox of its own; return what each told."""
    files = {path.name: path.read_text() for path in PROGRAMS.glob("*.py")}
    found: list[Told] = []
    async with AsyncSandboxClient(state_dir=folder / str(kind), config=kind.settings) as client:
        for attack in ATTACKS:
            words = ["python", f"{attack.program}.py", *map(str, attack.arguments(bait))]
            async with await client.create_sandbox(
                attack.title, files=files, resources=RESOURCES, waive=kind.waive
            ) as sandbox:
                held_by = {limit.name: limit.held_by for limit in sandbox.limits}
                done = await sandbox.run_command(words, timeout=SECONDS)
            tried = await _survivors(_last_words(done.stdout), bait)
            # That is after the fact; it may leave no time to tell.
            late = done.ended.limit is not None and held_by[done.ended.limit] == "watchdog"
            found.append({"ended": "late"} if late else tried)
    return found


def _last_words(text: str) -> Told:
    """Return what a program told; nothing if it did not come to that."""
    lines = [line for line in text.splitlines() if line.startswith("{")]
    return told(lines[-1]) if lines else {}


async def _survivors(found: Told, bait: Bait) -> Told:
    """Add whether a process that the attack left is still there a second later, and end it."""
    marker = f"left-{bait.marker}"
    if await soon(lambda: not running(marker), seconds=1):
        return found
    for pid in running(marker):
        os.kill(pid, signal.SIGKILL)
    return {**found, "still there": "worked"}


async def columns(folder: Path) -> dict[str, list[str]]:
    """Return the name of each kind of sandbox, and its cells."""
    table: dict[str, list[str]] = {}
    with laid(folder, ATTACKER) as bait:
        for name, wrap in OTHERS.items():
            if wrap is not bare and shutil.which(wrap(folder / "work")[0]) is None:
                sys.stderr.write(f"{name} is not installed, and has no column\n")
                continue
            run = other(wrap, folder)
            cells: list[str] = []
            for attack in ATTACKS:
                found = await _survivors(await run_sync(run, attack, bait), bait)
                cells.append(_cell(attack, "", found))
            table[name] = cells
        for kind in KINDS:
            table[str(kind).replace("-", " ")] = [
                _cell(attack, kind.level, found)
                for attack, found in zip(ATTACKS, await ours(kind, folder, bait), strict=True)
            ]
    return table


def _cell(attack: Attack, level: str, found: Told) -> str:
    """Return the word for how it went at one of our levels, or elsewhere.

    Raises:
        RuntimeError: The program told nothing: then nothing was tried.
    """
    if not (found or attack.fatal):
        raise RuntimeError(f"{attack.program} did not run: nothing is known of {attack.title!r}")
    if "ended" in found:
        return "late"
    if not attack.opened(found):
        return "closed"
    allowed = attack.allowed if GROUPS else attack.allowed | attack.ungrouped
    return "allowed" if level in allowed else "open"


def text(table: dict[str, list[str]]) -> str:
    """Return the table in Markdown, with what it was made with."""
    lines = [
        f"Made by `tests/attack_table.py` on {_versions(table)}.",
        f"Ours was started by {USER}; what is not ours ran as a plain user.",
        "",
        "| case | attack | " + " | ".join(table) + " |",
        "|---" * (len(table) + 2) + "|",
    ]
    for number, attack in enumerate(ATTACKS):
        cells = (column[number] for column in table.values())
        shown = ("**open**" if cell == "open" else cell for cell in cells)
        lines.append(f"| {attack.case} | {attack.title} | " + " | ".join(shown) + " |")
    counts = (f"{column.count('open')} of {len(column)}" for column in table.values())
    lines.append("| | open | " + " | ".join(counts) + " |")
    return "\n".join(lines)


def _versions(table: dict[str, list[str]]) -> str:
    """Return what the table depends on."""
    kernel = re.sub(r"[-+].*", "", platform.release())
    found = [f"Linux {kernel}", f"Python {platform.python_version()}"]
    asked = {"`bwrap --unshare-all`": ["bwrap", "--version"], "srt": ["srt", "--version"]}
    for name, words in asked.items():
        if name in table:
            said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
            found.append(f"{words[0]} {said.split()[-1]}")
    return ", ".join(found)


def main() -> None:
    """Print the table, and write it to its page if asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help=f"replace the table in {PAGE.name}")
    arguments = parser.parse_args()
    os.environ["OPENAI_API_KEY"] = KEY  # as users have theirs, when a client is made
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        made = text(anyio.run(columns, Path(name)))
    sys.stdout.write(made + "\n")
    if arguments.write:
        page = PAGE.read_text()
        before, after = page.split(BEGIN)[0], page.split(END)[1]
        PAGE.write_text(f"{before}{BEGIN}\n{made}\n{END}{after}")


if __name__ == "__main__":
    main()
