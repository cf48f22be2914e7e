"""Every Python example of README and of some pages of `docs/` runs as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    page: (ROOT / page).read_text()
    for page in ("README.md", "docs/code.md", "docs/batches.md", "docs/policies.md")
}
README = PAGES["README.md"]
EXAMPLES = [
    pytest.param(found.group(1), id=f"{page}-{text[: found.start()].count(chr(10)) + 1}")
    for page, text in PAGES.items()
    for found in re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
]


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("code", EXAMPLES)
def test_the_example_runs(code: str, tmp_path: Path) -> None:
    program = tmp_path / "example.py"
    program.write_text(code)
    folder = tmp_path / "empty"
    folder.mkdir()
    ended = subprocess.run(
        [sys.executable, str(program)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"


def test_the_readme_has_examples() -> None:
    assert EXAMPLES


def test_the_readme_names_the_commands_that_ci_runs() -> None:
    assert 'pip install ".[local,bwrap]" && sandbox-sdk demo' in README
    assert "pip install nox && nox" in README
    assert "pip install nox && nox" in (ROOT / ".ci" / "run").read_text()
