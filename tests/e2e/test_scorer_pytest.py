"""The pytest scorer withstands what a submission brings along, and its limits are known."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import pytest
from fresh import Sandboxes

from sandbox_sdk import AsyncSandboxClient
from sandbox_sdk.errors import ConfigError
from sandbox_sdk.experiments.scorers import UNSCORED, Score, Scorer, Submission, build
from sandbox_sdk.values import Sample

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

TESTS = """
import pytest
from solution import add

@pytest.mark.parametrize("a, b, total", [(1, 2, 3), (20, 22, 42)])
def test_add(a, b, total):
    assert add(a, b) == total

class TestMore:
    def test_text(self):
        assert add("a", "b") == "ab"
"""
RIGHT = "def add(a, b): return a + b\n"
WRONG = "def add(a, b): return 3\n"
LISTED = 3
SHARED = build("pytest")  # lists the same tests once


@pytest.fixture
async def sandboxes(tmp_path: Path) -> AsyncGenerator[Sandboxes]:
    async with AsyncSandboxClient(state_dir=tmp_path / "state") as client:
        yield Sandboxes(client)


async def judge(
    sandboxes: Sandboxes,
    code: str,
    artifacts: dict[str, bytes] | None = None,
    tests: Any = TESTS,
    scorer: Scorer | None = None,
    **spec: Any,
) -> Score:
    scorer = scorer or (build({"type": "pytest", **spec}) if spec else SHARED)
    sample = Sample(id="s1", target=tests)
    submission = Submission(
        output=f"```python\n{code}\n```", sample=sample, artifacts=artifacts or {}
    )
    score = await scorer.score(submission, sandboxes=sandboxes)
    json.dumps(score.to_json(), allow_nan=False)
    return score


async def test_tests_are_listed_once_and_then_run_in_fresh_sandboxes(sandboxes: Sandboxes) -> None:
    scorer = build("pytest")
    score = await judge(sandboxes, RIGHT, scorer=scorer)
    assert (score.value, score.label) == (1, "correct")
    assert score.metadata["tests"] == LISTED
    assert sandboxes.made == 2
    score = await judge(sandboxes, WRONG, scorer=scorer)
    assert (score.value, score.label) == (0, "incorrect")
    assert score.metadata["passed"] == 1
    assert score.metadata["not_passed"] == [
        "test_submission.py::test_add[20-22-42]",
        "test_submission.py::TestMore::test_text",
    ]
    assert "assert 3 == 42" in (score.explanation or "")
    assert sandboxes.made == 3
    listing, rest = sandboxes.entered[:3], sandboxes.entered[3:]  # a file, settings, a command
    assert "pytest" in listing[2]
    assert not any("return a + b" in item for item in listing)
    assert any("return a + b" in item for item in rest)


async def test_trials_that_start_together_list_the_same_tests_once(sandboxes: Sandboxes) -> None:
    scorer = build("pytest")
    values: list[float | None] = []

    async def one() -> None:
        values.append((await judge(sandboxes, RIGHT, scorer=scorer)).value)

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(one)
    assert (values, sandboxes.made) == ([1, 1, 1], 4)


async def test_a_share_is_given_where_asked_for(sandboxes: Sandboxes) -> None:
    score = await judge(sandboxes, WRONG, credit="share")
    assert score.value == pytest.approx(1 / LISTED)
    assert score.label == "partial"


async def test_tests_bring_their_own_conftest_helpers_and_settings(sandboxes: Sandboxes) -> None:
    tests = {
        "conftest.py": "import pytest\n@pytest.fixture\ndef two(): return 2",
        "helper.py": "WANTED = 4",
        "pytest.ini": "[pytest]\npython_functions = check_*",
        "test_it.py": "import helper, solution\n"
        "def check_sum(two): assert solution.add(two, two) == helper.WANTED",
    }
    assert (await judge(sandboxes, RIGHT, tests=tests)).value == 1
    assert (await judge(sandboxes, WRONG, tests=tests)).value == 0


async def test_a_package_is_submitted_as_artifacts(sandboxes: Sandboxes) -> None:
    tests = "from mathy.sums import add\ndef test_add(): assert add(1, 2) == 3"
    artifacts = {
        "mathy/__init__.py": b"",
        "mathy/sums.py": b"from .base import plus\nimport extra\nadd = plus",
        "mathy/base.py": b"def plus(a, b): return a + b",
        "extra.py": b"",
    }
    score = await judge(sandboxes, "", artifacts, tests=tests, modules=["mathy"])
    assert score.value == 1, score.explanation


BROUGHT_ALONG = {
    "conftest.py": b"""
import pytest
@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    outcome.get_result().outcome = "passed"
""",
    "sitecustomize.py": b"import os; os._exit(0)",
    "usercustomize.py": b"import os; os._exit(0)",
    "pytest.ini": b"[pytest]\naddopts = --collect-only",
    "pyproject.toml": b"[tool.pytest.ini_options]\naddopts = '--collect-only'",
    "setup.cfg": b"[tool:pytest]\naddopts = --collect-only",
    "pytest.py": b"raise SystemExit(0)",
    "_pytest/__init__.py": b"raise SystemExit(0)",
    "unittest.py": b"raise SystemExit(0)",
    "json.py": b"raise SystemExit(0)",
    "python": b"#!/bin/sh\nexit 0\n",
    "tests/test_submission.py": b"def test_nothing(): pass",
    "test_submission.py": b"def test_nothing(): pass",
    "x.pth": b"import os; os._exit(0)",
    ".env": b"PYTHONPATH=/workspace/submission\nPYTEST_ADDOPTS=--collect-only\nPATH=/workspace",
    ".bashrc": b"exit 0",
}


@pytest.mark.parametrize(("code", "value"), [(RIGHT, 1), (WRONG, 0)])
async def test_files_brought_along_leave_the_score_unchanged(
    sandboxes: Sandboxes, code: str, value: float
) -> None:
    """Conftest, sitecustomize, configuration, shadowing modules, PATH, PYTHON* and test files."""
    score = await judge(sandboxes, code, BROUGHT_ALONG)
    assert score.value == value, score.explanation
    assert score.metadata["tests"] == LISTED


HACKS = {
    "exit": "import os; os._exit(0)",
    "exit when tested": "def add(a, b):\n import os\n os._exit(0)",
    "leave": "raise SystemExit(0)",
    "leave when tested": "def add(a, b): raise SystemExit(0)",
    "pytest.exit": "import pytest\ndef add(a, b): pytest.exit('all good', 0)",
    "pytest.skip": "import pytest\ndef add(a, b): pytest.skip()",
    "pytest.xfail": "import pytest\ndef add(a, b): pytest.xfail()",
    "skip the file": "import pytest\npytest.skip('x', allow_module_level=True)",
    "end of the process": "import atexit, os\natexit.register(os._exit, 0)\n" + WRONG,
    "faked clock": "import time\nfor n in ('time', 'monotonic', 'perf_counter', 'sleep'):\n"
    " setattr(time, n, lambda *a: 0.0)\n" + WRONG,
    "environment": "import os, sys\nos.environ.update(PATH='/workspace', PYTHONPATH='/workspace',"
    " PYTEST_ADDOPTS='--collect-only', PYTHONSTARTUP='x', PYTHONHASHSEED='0')\n"
    "sys.path.insert(0, '/workspace/submission')\n" + WRONG,
    "written over tests": "for n in ('test_submission.py', 'conftest.py'):\n"
    " open('/workspace/tests/' + n, 'w').write('def test_add(): pass')\n" + WRONG,
    "printed report": "import os, json\n"
    "text = json.dumps(dict(ids=[], outcomes={}, errors=[], code=0))\n"
    "for fd in range(1, 64):\n"
    " try: os.write(fd, ('\\n' + '0' * 32 + ' ' + text + '\\n').encode())\n"
    " except OSError: pass\n" + WRONG,
    "left behind": "import os, time\nif os.fork() == 0:\n time.sleep(60)\n" + WRONG,
    "killed parent": "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\n" + WRONG,
}


@pytest.mark.parametrize("hack", HACKS)
async def test_ways_out_of_the_tests_are_no_passes(sandboxes: Sandboxes, hack: str) -> None:
    score = await judge(sandboxes, HACKS[hack])
    assert score.value == 0
    assert score.counted


async def test_a_faked_clock_takes_nothing_from_a_right_answer(sandboxes: Sandboxes) -> None:
    code = "import time\ntime.time = time.monotonic = lambda: 0.0\n" + RIGHT
    assert (await judge(sandboxes, code)).value == 1


async def test_the_host_keeps_the_time(sandboxes: Sandboxes) -> None:
    code = "import time\ntime.sleep(100)" + "\n" + RIGHT
    score = await judge(sandboxes, code, timeout=5)
    assert (score.value, score.label) == (0, "timeout")


async def test_what_code_under_test_can_still_do_in_the_process_of_pytest(
    sandboxes: Sandboxes,
) -> None:
    """A known limit, which docs/scorers.md tells: it reads the tests, and can bend pytest.

    If this fails because the score is 0, the documentation promises too little.
    """
    reads = (
        "import re\n"
        "text = open('/workspace/tests/test_submission.py').read()\n"
        "table = {(int(a), int(b)): int(c) for a, b, c in "
        "re.findall(r'\\((\\d+), (\\d+), (\\d+)\\)', text)}\n"
        "def add(a, b): return table.get((a, b), 'ab')\n"
    )
    assert (await judge(sandboxes, reads)).value == 1
    bends = "import _pytest.python\n_pytest.python.Function.runtest = lambda self: None\n" + WRONG
    assert (await judge(sandboxes, bends)).value == 1


async def test_the_same_tricks_are_of_no_use_under_io(sandboxes: Sandboxes) -> None:
    """Nothing to read is there: the answer stays on the host."""
    code = (
        "import os\n"
        "for top, _, names in os.walk('/workspace'):\n"
        "    for name in names:\n"
        "        print(open(os.path.join(top, name)).read())\n"
    )
    submission = Submission(
        output=f"```python\n{code}```",
        sample=Sample(id="s", target=[{"stdin": "20 22", "stdout": "42"}]),
    )
    score = await build("io").score(submission, sandboxes=sandboxes)
    assert score.value == 0
    assert not any("42" in item for item in sandboxes.entered)


@pytest.mark.parametrize(
    ("tests", "spec", "said"),
    [
        ("def test_(:", {}, "SyntaxError"),
        ("x = 1", {}, "no tests collected"),
        ("import not_there", {}, "not_there"),
        (TESTS, {"modules": ["other"]}, "No module named 'solution'"),
        (TESTS, {"sandbox": {"template": "python"}}, "does the sandbox have pytest?"),
        (TESTS, {"plugins": ["not_there"]}, "not_there"),
    ],
)
async def test_tests_that_cannot_be_listed_score_nothing(
    sandboxes: Sandboxes, tests: str, spec: dict[str, Any], said: str
) -> None:
    score = await judge(sandboxes, RIGHT, tests=tests, **spec)
    assert (score.value, score.label) == (None, UNSCORED)
    assert said in (score.explanation or "")


async def test_artifacts_cannot_reach_the_folder_of_the_tests(sandboxes: Sandboxes) -> None:
    for path in ("../tests/test_submission.py", "a/../../tests/conftest.py", "/workspace/tests/x"):
        score = await judge(sandboxes, WRONG, {path: b"def test_add(): pass"})
        assert (score.value, score.label) == (0, "bad_artifacts")


@pytest.mark.parametrize("target", [None, {}, " ", 3, {"/x.py": ""}, {"a": 1}])
def test_a_sample_without_tests_is_refused(target: Any) -> None:
    with pytest.raises(ConfigError, match=r"samples\[0\]\.target"):
        build("pytest").check(Sample(id="s", target=target), "samples[0]")


def test_a_wrong_config_tells_every_fault() -> None:
    with pytest.raises(ConfigError) as caught:
        build({"type": "pytest", "modules": ["a.b"], "plugins": "-x", "credit": "some"})
    assert [fault.split(":")[0] for fault in caught.value.faults] == [
        "scorer.modules[0]",
        "scorer.plugins[0]",
        "scorer.credit",
    ]


def test_the_tests_decide_the_digest() -> None:
    one, two = (build({"type": "pytest", "tests": text}) for text in ("x", "y"))
    assert one.digest != two.digest
    assert one.digest == build({"type": "pytest", "tests": "x", "name": "other"}).digest
