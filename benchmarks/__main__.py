"""Runs every benchmark, or those named, one after the other, and makes one table of all.

    python benchmarks [NAME ...] [--results FOLDER] [--quick] [--write-docs]

Each script runs in a process of its own and writes its JSON into the folder, which then holds the
raw rows of all. ``--write-docs`` puts the table of what the folder holds into the documentation.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench import table
from bench.noise import described

HERE = Path(__file__).resolve().parent
SCRIPTS = sorted(path.stem for path in HERE.glob("*.py") if path.stem != "__main__")
PAGE = HERE.parent / "docs/benchmarks.md"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
QUICK = "2"


def main() -> int:
    """Run them; return 1 if one could not measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SCRIPTS)}")
    parser.add_argument("--results", type=Path, default=HERE.parent / ".nox/bench-results")
    parser.add_argument("--quick", action="store_true", help="the smallest counts: do they run?")
    parser.add_argument("--write-docs", action="store_true", help=f"the table into {PAGE.name}")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(SCRIPTS):
        parser.error(f"there is no {', '.join(sorted(unknown))}: there are {', '.join(SCRIPTS)}")
    results: Path = arguments.results
    results.mkdir(parents=True, exist_ok=True)
    broken = [name for name in arguments.names or SCRIPTS if not _run(name, results, arguments)]
    found = [json.loads(path.read_text()) for path in sorted(results.glob("*.json"))]
    rows = [table.of_told(row) for each in found for row in each["promises"]]
    print(f"\n{table.plain(rows)}")
    if arguments.write_docs:
        _write(found)
    if broken:
        print(f"could not measure: {', '.join(broken)}")
    return int(bool(broken))


def _run(name: str, results: Path, arguments: argparse.Namespace) -> bool:
    """Run one script; return whether it measured. The state is shared: one template for all."""
    command = [sys.executable, str(HERE / f"{name}.py"), "--json", str(results / f"{name}.json")]
    command += ["--state-dir", str(results / f"state-{os.geteuid()}")]
    if arguments.quick:
        command += ["--count", QUICK]
    print(flush=True)
    return subprocess.run(command).returncode == 0


def _write(found: list[dict[str, Any]]) -> None:
    """Put the tables between the page's marks."""
    parts: list[str] = []
    for each in found:
        told = each["machine"]
        day = time.strftime("%Y-%m-%d", time.gmtime(told["started_at"]))
        kernel = told["kernel"].partition("-")[0]
        who = "root" if told["root"] else "a plain user"
        parts += [
            f"### {each['benchmark']}",
            table.markdown(table.of_told(row) for row in each["promises"]),
            (
                f"{day}, {told['cpus']} CPUs ({told['cpu']}), Linux {kernel}, {who}, state "
                f"on {told['file_system']}; {described(told)}."
            ),
            *(f"Not measured: {label}: {why}." for label, why in each["absent"].items()),
        ]
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text("\n\n".join([f"{before}{BEGIN}", *parts, f"{END}{after}"]))


if __name__ == "__main__":
    sys.exit(main())
