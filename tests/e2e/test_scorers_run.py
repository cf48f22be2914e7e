"""Scorers that run something do so in fresh real sandboxes, and keep their targets from them."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from fresh import Sandboxes

from sandbox_sdk import AsyncSandboxClient
from sandbox_sdk.errors import ConfigError, LaunchError, SandboxEnded
from sandbox_sdk.experiments.scorers import UNSCORED, Score, Submission, build, scored
from sandbox_sdk.experiments.scorers.function import source_of
from sandbox_sdk.values import Ended, EndKind, Sample

pytestmark = pytest.mark.anyio

CANARY = "canary-5b0f2c"

ADD = "print(sum(map(int, input().split())))\n"
CASES = [{"stdin": "1 2", "stdout": "3\n"}, {"stdin": "20 22", "stdout": "42"}]


@pytest.fixture
async def sandboxes(tmp_path: Path) -> AsyncGenerator[Sandboxes]:
    async with AsyncSandboxClient(state_dir=tmp_path / "state") as client:
        yield Sandboxes(client)


def block(code: str) -> str:
    return f"Here it is:\n```python\n{code}\n```\n"


async def judge(
    sandboxes: Sandboxes,
    spec: Any,
    output: str = "",
    target: Any = None,
    artifacts: dict[str, bytes] | None = None,
) -> Score:
    scorer = build(spec)
    assert scorer.needs_sandbox
    sample = Sample(id="s1", prompt="?", target=target, metadata={"k": [1]})
    submission = Submission(output=output, sample=sample, artifacts=artifacts or {})
    score = await scorer.score(submission, sandboxes=sandboxes)
    json.dumps(score.to_json(), allow_nan=False)
    return score


async def test_io_runs_every_case_in_a_sandbox_of_its_own(sandboxes: Sandboxes) -> None:
    score = await judge(sandboxes, "io", block(ADD), CASES)
    assert (score.value, score.label) == (1, "correct")
    assert score.metadata == {"right": 2, "ran": 2, "cases": 2}
    assert sandboxes.made == 2


async def test_io_takes_the_file_that_was_declared_before_the_text(sandboxes: Sandboxes) -> None:
    artifacts = {"solution.py": ADD.encode(), "other.txt": b"x"}
    score = await judge(sandboxes, "io", block("print(0)"), CASES, artifacts)
    assert score.value == 1


@pytest.mark.parametrize(
    ("code", "spec", "label"),
    [
        ("print(4)", {}, "wrong_output"),
        ("raise SystemExit(3)", {}, "failed"),
        ("import os; os.kill(os.getpid(), 9)", {}, "failed"),
        ("while True: pass", {"timeout": 0.3}, "timeout"),
        ("b = bytearray(1 << 30)\nfor i in range(0, len(b), 4096): b[i] = 1", {}, "oom"),
        ("print('3', end='')", {"compare": "exact"}, "wrong_output"),
        ("print('3.01')", {"compare": "tokens", "tolerance": 0.001}, "wrong_output"),
        ("print('nan')", {"compare": "tokens", "tolerance": 1}, "wrong_output"),
    ],
)
async def test_io_says_how_a_submission_went_wrong(
    sandboxes: Sandboxes, code: str, spec: dict[str, Any], label: str
) -> None:
    settings = {"resources": {"memory": "64MiB"}}
    score = await judge(sandboxes, {"type": "io", "sandbox": settings, **spec}, block(code), CASES)
    assert (score.value, score.label) == (0, label)
    assert sandboxes.made == 1  # the first wrong case decides


@pytest.mark.parametrize(
    ("code", "spec"),
    [
        ("print('3  ')\nprint()", {}),
        ("print(3)", {"compare": "exact"}),
        ("print('\\n 3')", {"compare": "tokens"}),
        ("print(3.0001)", {"compare": "tokens", "tolerance": 0.001}),
    ],
)
async def test_io_compares_as_it_is_told(
    sandboxes: Sandboxes, code: str, spec: dict[str, Any]
) -> None:
    assert (await judge(sandboxes, {"type": "io", **spec}, block(code), CASES[:1])).value == 1


HOSTILE = {
    "floods": "import sys\nwhile True: sys.stdout.write('x' * 65536)",
    "forks": "import os\nwhile True:\n try: os.fork()\n except OSError: pass",
    "fills": "f = open('/tmp/x', 'wb')\nwhile True: f.write(bytes(1 << 20))",
    "kills": "import os\nos.kill(-1, 9)",
    "kills the first": "import os\nos.kill(1, 9)",
    "kills its parent": "import os\nos.kill(os.getppid(), 9)",
    "stops itself": "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)",
    "closes all": "import os\nos.closerange(0, 4096)",
    "leaves a child": "import os, time\nif os.fork() == 0: time.sleep(60)",
    "removes all": "import shutil\nshutil.rmtree('/', ignore_errors=True)",
    "says no text": "import sys\nsys.stdout.buffer.write(bytes(range(256)))",
}


@pytest.mark.parametrize("how", HOSTILE)
async def test_no_submission_gets_out_of_being_judged(sandboxes: Sandboxes, how: str) -> None:
    """What it does to its sandbox is a wrong answer, never one that does not count."""
    limits = {"memory": "64MiB", "pids": 16, "disk": "32MiB"}
    spec = {"type": "io", "timeout": 1.5, "sandbox": {"resources": limits}}
    score = await judge(sandboxes, spec, block(HOSTILE[how]), CASES[:1])
    assert (score.value, score.counted) == (0, True), score.explanation


async def test_io_gives_a_share_and_passes_arguments(sandboxes: Sandboxes) -> None:
    cases = [{"args": ["a"], "stdout": "a"}, {"args": ["b c"], "stdout": "b"}]
    spec = {"type": "io", "cases": cases, "credit": "share"}
    score = await judge(sandboxes, spec, block("import sys\nprint(*sys.argv[1:])\n"))
    assert (score.value, score.label) == (0.5, "partial")
    assert score.answer == "b c\n"


LOOK = """
import os, sys
seen = [open("/proc/self/cmdline").read(), str(dict(os.environ)), sys.stdin.read()]
for top in ("/workspace", "/tmp", "/home", "/root", "/opt/sandbox", "/dev/shm", "/run", "/proc"):
    for folder, _, names in os.walk(top):
        for name in names:
            path = os.path.join(folder, name)
            if top == "/proc" and name not in ("cmdline", "environ", "maps"):
                continue
            try:
                with open(path, errors="replace") as file:
                    seen.append(path + file.read(1 << 20))
            except OSError:
                pass
print("FOUND" if ("can" + "ary-5b0f2c") in "".join(seen) else "nothing")
print(len(seen) > 3)
"""


async def test_the_target_of_io_enters_no_sandbox(sandboxes: Sandboxes) -> None:
    """Code inside finds the canary where it is put in, and nowhere else when it is the target."""
    cases = [{"stdin": CANARY, "stdout": "x"}]
    score = await judge(sandboxes, "io", block(LOOK), cases)
    assert score.answer == "FOUND\nTrue\n"  # the control: it does find what is there
    assert any(CANARY in item for item in sandboxes.entered)
    sandboxes.entered.clear()
    score = await judge(sandboxes, "io", block(LOOK), [{"stdin": "1", "stdout": CANARY}])
    assert score.answer == "nothing\nTrue\n"
    assert sandboxes.entered
    assert not any(CANARY in item for item in sandboxes.entered)
    assert CANARY not in json.dumps(score.to_json())


@pytest.mark.parametrize(
    "artifacts",
    [
        {"../../etc/x": b""},
        {"a": b"", "a/b": b""},
        {"big": bytes(51 << 20)},
        {"a\x00b": b""},
    ],
)
async def test_artifacts_that_cannot_be_placed_are_wrong_not_unscored(
    sandboxes: Sandboxes, artifacts: dict[str, bytes]
) -> None:
    for spec in ("io", {"type": "command", "command": "true"}):
        score = await judge(sandboxes, spec, block(ADD), CASES, artifacts)
        assert (score.value, score.label) == (0, "bad_artifacts")
    assert sandboxes.made == 0


async def test_a_command_judges_by_its_exit_code(sandboxes: Sandboxes) -> None:
    spec = {"type": "command", "command": ["grep", "-q", "Paris", "output.txt"]}
    assert (await judge(sandboxes, spec, "It is Paris.")).value == 1
    score = await judge(sandboxes, spec, "It is Rome.")
    assert (score.value, score.metadata) == (0, {"exit_code": 1})


async def test_a_command_may_say_more_on_its_last_line(sandboxes: Sandboxes) -> None:
    check = """
import json
wanted = json.load(open("target.json"))
print("noise")
print(json.dumps({"value": 0.25, "label": "near", "explanation": str(wanted)}))
"""
    spec = {
        **{"type": "command", "command": "python check.py", "verdict_from": "stdout"},
        **{"files": {"check.py": check}, "give_target": True},
    }
    score = await judge(sandboxes, spec, target=[1, 2])
    assert (score.value, score.label, score.explanation) == (0.25, "near", "[1, 2]")


async def test_no_artifact_replaces_a_file_of_the_scorer(sandboxes: Sandboxes) -> None:
    spec = {
        **{"type": "command", "command": "bash t/check.sh", "file": "t/answer"},
        "files": {"t/check.sh": "exit 1"},
    }
    for artifacts in ({"t/check.sh": b"exit 0"}, {"t": b"exit 0"}, {"t/check.sh/x": b""}):
        assert (await judge(sandboxes, spec, "x", None, artifacts)).value == 0


@pytest.mark.parametrize(
    ("command", "label", "value"),
    [
        ("no-such-program", UNSCORED, None),
        (["/workspace/output.txt"], UNSCORED, None),
        ("sleep 60", "timeout", 0),
        ("exit 7", "incorrect", 0),
    ],
)
async def test_a_command_that_is_not_there_scores_nothing_one_that_ends_badly_zero(
    sandboxes: Sandboxes, command: Any, label: str, value: float | None
) -> None:
    score = await judge(sandboxes, {"type": "command", "command": command, "timeout": 1}, "x")
    assert (score.value, score.label) == (value, label)


@pytest.mark.parametrize("said", ["", "maybe", "NaN", '"1"', '{"value": 1, "x": 2}', "null"])
async def test_a_command_that_says_no_score_scores_nothing(sandboxes: Sandboxes, said: str) -> None:
    command = ["printf", "%s", said]
    spec = {"type": "command", "command": command, "verdict_from": "stdout"}
    assert (await judge(sandboxes, spec)).label == UNSCORED


def length(output: str, target: int, sample: dict[str, Any]) -> dict[str, Any]:
    import json

    print("this is no verdict")  # noqa: T201 - it runs in a sandbox
    assert json.dumps(sample["metadata"]) == '{"k": [1]}'
    return {"value": min(1.0, len(output) / target), "metadata": {"label": sample["id"]}}


async def test_a_function_judges_by_its_source(sandboxes: Sandboxes) -> None:
    score = await judge(sandboxes, length, "xx", 4)
    assert (score.scorer, score.value, score.label) == ("length", 0.5, "partial")
    assert score.metadata == {"label": "s1"}
    named = await judge(
        sandboxes, {"type": "function", "name": "n", "source": length, "timeout": 20}, "xx", 4
    )
    assert (named.scorer, named.value, named.digest) != (score.scorer, score.value, score.digest)
    assert (named.scorer, named.value) == ("n", 0.5)


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("def f(output): return output == 'x'", 1),
        ("def f(artifacts, messages): return artifacts['a'] == b'\\xff' and not messages", 1),
        ("import math\ndef g(x): return math.sqrt(x)\ndef f(target): return g(target) - 1", 1),
        ("def f(output, *, target): return None", None),
        ("def f(output): return float('nan')", None),
        ("def f(output): return 'good'", None),
        ("def f(output): return object()", None),
        ("def f(output): return {'values': 1}", None),
        ("def f(output): raise ValueError(output)", None),
        ("def f(output):\n import os\n os._exit(0)", None),
        ("def f(output):\n while True: pass", None),
        ("def f(output):\n import numpy\n return numpy.float64(1)", 1),
    ],
)
async def test_a_function_that_comes_to_no_verdict_scores_nothing(
    sandboxes: Sandboxes, source: str, value: float | None
) -> None:
    spec = {"type": "function", "source": source, "timeout": 3}
    score = await judge(sandboxes, spec, "x", 4, {"a": b"\xff"})
    assert score.value == value
    assert (score.label == UNSCORED) == (value is None)


async def test_a_function_cannot_be_talked_into_running_the_submission(
    sandboxes: Sandboxes,
) -> None:
    hostile = "__import__('os')._exit(0)"
    spec = {"type": "function", "source": "def f(output, artifacts): return len(output) > 0"}
    score = await judge(sandboxes, spec, hostile, None, {"sitecustomize.py": b"1/0"})
    assert score.value == 1


def test_functions_that_cannot_stand_for_themselves_are_refused() -> None:
    limit = 3

    def closure(output: str) -> bool:
        return len(output) < limit

    def uses_module(output: str) -> bool:
        return output == CANARY

    def unknown(output: str, answer: str) -> bool:
        return output == answer

    for function, said in [
        (closure, "is a closure over limit"),
        (uses_module, "uses CANARY of outside"),
        (unknown, "may take, by name: output, target"),
        (lambda output: True, "must be a function that was written with def"),
        (len, "must be a function that was written with def"),
        ("x".startswith, "must be a function that was written with def"),
    ]:
        with pytest.raises(ConfigError) as caught:
            build(function, "scorers[0]")
        assert str(caught.value).startswith(f"scorers[0]: {said}") or said in str(caught.value)
    made: dict[str, Any] = {}
    exec("def f(output): return 1", made)
    with pytest.raises(ConfigError, match="the source of f"):
        build(made["f"])


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("x = 1", "must define a function"),
        ("def f(:", "is no Python"),
        ("@cache\ndef f(output): return 1", "has decorators"),
        ("def f(output, *rest): return 1", "may take, by name"),
        ("def f(): return 1", "takes nothing"),
        ("def f(output=LIMIT): return [y for y in z]", "uses LIMIT, z of outside"),
        ("\x00", "is no Python"),
    ],
)
def test_sources_that_cannot_stand_for_themselves_are_refused(source: str, said: str) -> None:
    with pytest.raises(ConfigError, match=f"scorer.source: .*{said}"):
        build({"type": "function", "source": source})


def test_the_source_of_a_function_decides_its_digest() -> None:
    assert build(length).digest == build(length).digest
    assert source_of(length, "x").arguments == ("output", "target", "sample")
    one, two = (build({"type": "function", "source": f"def f(output): return {n}"}) for n in "12")
    assert one.digest != two.digest


@pytest.mark.parametrize(
    ("spec", "faults"),
    [
        (
            {"type": "io", "sandbox": {"memory": 1, "resources": {"memory": "x"}}, "timeout": 0},
            ["scorer.sandbox.memory:", "scorer.sandbox.resources.memory:", "scorer.timeout:"],
        ),
        ({"type": "io", "cases": [{"stdin": 1}]}, ["scorer.cases[0].stdin:"]),
        ({"type": "io", "cases": [{}]}, ["scorer.cases[0].stdout: is required"]),
        ({"type": "io", "cases": []}, ["scorer.cases: must be a text, or a list"]),
        ({"type": "io", "tolerance": 1}, ['scorer.tolerance: needs "compare"']),
        (
            {"type": "io", "command": "python x", "cases": [{"args": ["a"], "stdout": ""}]},
            ["scorer.command: must be a list"],
        ),
        ({"type": "io", "file": "../x"}, ["scorer.file: must be a relative path"]),
        ({"type": "command"}, ["scorer.command: is required"]),
        ({"type": "command", "command": []}, ["scorer.command: must be a program"]),
        ({"type": "command", "command": ["a\0"]}, ["scorer.command: holds a NUL"]),
        (
            {"type": "command", "command": "x", "files": {"/a": "", "b/../c": ""}},
            ["scorer.files./a:", "scorer.files.b/../c:"],
        ),
        ({"type": "function"}, ["scorer.source: is required"]),
        ({"type": "io", "sandbox": {"packages": "r.txt"}}, ["scorer.sandbox.packages: must be a"]),
    ],
)
def test_wrong_configs_tell_every_fault_with_its_path(spec: Any, faults: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        build(spec)
    for found, said in zip(caught.value.faults, faults, strict=True):
        assert found.startswith(said)


@pytest.mark.parametrize("target", [None, [], 3, [{"stdin": ""}], [1]])
def test_io_refuses_samples_without_cases_before_any_model_is_paid(target: Any) -> None:
    with pytest.raises(ConfigError, match=r"samples\[0\]\.target"):
        build("io").check(Sample(id="s", target=target), "samples[0]")


class NoRoom:
    """Sandboxes that cannot be had, or die."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def fresh(self, **_: Any) -> Any:
        raise self._error


@pytest.mark.parametrize(
    "error", [LaunchError("no room"), SandboxEnded("gone", ended=Ended(kind=EndKind.INFRA))]
)
async def test_without_a_sandbox_nothing_is_scored(error: Exception) -> None:
    submission = Submission(output=block(ADD), sample=Sample(id="s", target=CASES))
    score = await scored(build("io"), submission, sandboxes=NoRoom(error))
    assert (score.value, score.label) == (None, UNSCORED)
