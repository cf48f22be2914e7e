"""What is asked of create_sandbox is checked before anything is made."""

from __future__ import annotations

import pytest

from sandbox_sdk.config import Settings
from sandbox_sdk.errors import ConfigError
from sandbox_sdk.spec import LARGEST_FILES, parse_spec
from sandbox_sdk.values import Resources, SandboxSpec

SETTINGS = Settings(
    api_key="a-long-secret",
    client_secret="short",
    timeout=9.0,
    idle_timeout=8.0,
    security_level="high",
    resources=Resources(pids=9),
)


def faults(name: object = "x", **asked: object) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        parse_spec(name, settings=SETTINGS, **asked)  # type: ignore[arg-type]
    return caught.value.faults


def test_what_is_not_asked_comes_from_the_settings() -> None:
    assert parse_spec("x", settings=SETTINGS) == SandboxSpec(
        name="x",
        timeout=9.0,
        idle_timeout=8.0,
        security_level="high",
        resources=Resources(pids=9),
    )


def test_what_is_asked_goes_before_the_settings() -> None:
    spec = parse_spec(
        "llm-experiment-1",
        settings=SETTINGS,
        resources={"memory": "2GB", "cpu": 1},
        timeout=3600,
        idle_timeout=60,
        security_level="medium",
        env={"A": "b", "_2": ""},
        files={"./a//b.txt": "text", "c": b"\0"},
        metadata={"owner": "me"},
    )
    assert spec == SandboxSpec(
        name="llm-experiment-1",
        resources=Resources(memory_bytes=2 * 10**9, cpu=1.0, pids=9),
        timeout=3600.0,
        idle_timeout=60.0,
        security_level="medium",
        env={"A": "b", "_2": ""},
        files={"a/b.txt": b"text", "c": b"\0"},
        metadata={"owner": "me"},
    )


@pytest.mark.parametrize("name", ["a", "--bind", "$(reboot)", "; rm -rf /", "日本語 ✓", "x" * 200])
def test_any_printable_name_is_a_name(name: str) -> None:
    assert parse_spec(name, settings=Settings()).name == name


@pytest.mark.parametrize(
    "name", ["", "a\nb", "a\0", "\x1b[31m", "\u202egnp", "\ud800", "x" * 201, None, 7, b"x", []]
)
def test_other_names_are_refused(name: object) -> None:
    (line,) = faults(name)
    assert line.startswith("name: ")
    assert line.isprintable()


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan"), True, "soon"])
def test_lifetimes_are_finite_and_above_0(seconds: object) -> None:
    lines = faults(timeout=seconds, idle_timeout=seconds)
    assert [line.split(":")[0] for line in lines] == ["timeout", "idle_timeout"]


@pytest.mark.parametrize(
    "env",
    [
        {"A-B": "x"},
        {"1A": "x"},
        {"": "x"},
        {"A=B": "x"},
        {"A\n": "x"},
        {"Ä": "x"},
        {"A": 1},
        {"A": None},
        {"A": "x\0y"},
        {"A": "\ud800"},
        {"A": "x" * 131_072},
        {f"A{number}": "x" * 131_000 for number in range(9)},
        {1: "x"},
        ["A=x"],
        "A=x",
    ],
)
def test_bad_variables_are_refused(env: object) -> None:
    (line,) = faults(env=env)
    assert line.startswith("env")


@pytest.mark.parametrize("value", ["a-long-secret", "Bearer a-long-secret!", "short"])
@pytest.mark.parametrize("where", ["env", "metadata"])
def test_no_secret_of_the_settings_enters(where: str, value: str) -> None:
    (line,) = faults(**{where: {"A": value}})
    assert "no secret enters a sandbox" in line
    assert value not in line


def test_a_short_secret_within_other_text_is_no_secret() -> None:
    assert parse_spec("x", settings=SETTINGS, env={"A": "shorten"}).env == {"A": "shorten"}


@pytest.mark.parametrize(
    "files",
    [
        {"/etc/passwd": b""},
        {"../x": b""},
        {"a/../../x": b""},
        {"a/..": b""},
        {"": b""},
        {".": b""},
        {"a/": b""},
        {"a/.": b""},
        {"a\0b": b""},
        {"\ud800": b""},
        {"x" * 256: b""},
        {"/".join(["x" * 200] * 21): b""},
        {"a": 1},
        {"a": None},
        {"a": bytearray(b"x")},
        {"a": b"", "./a": b""},
        {"a": b"", "a/b": b""},
        {1: b""},
        [("a", b"")],
    ],
)
def test_bad_files_are_refused(files: object) -> None:
    (line,) = faults(files=files)
    assert line.startswith("files")
    assert line.isprintable()


def test_files_fit_their_bound_and_the_sandbox() -> None:
    half = bytes(LARGEST_FILES // 2)
    assert parse_spec("x", settings=Settings(), files={"a": half, "b": half}).files["b"] == half
    (line,) = faults(files={"a": half, "b": half, "c": b"x"})
    assert "use sandbox.files.write()" in line
    (line,) = faults(files={"a": bytes(2**20 + 1)}, resources={"disk": "1MiB"})
    assert "resources.disk" in line
    (line,) = faults(files={"a": bytes(5000)}, resources={"file_size": "4KiB"})
    assert "resources.file_size" in line
    (line,) = faults(files={str(n): b"" for n in range(17)}, resources={"disk_files": 16})
    assert "resources.disk_files" in line


@pytest.mark.parametrize("metadata", [{"a": 1}, {"a": "x" * 70_000}, {"a": "\0"}, {"\0": "a"}, [1]])
def test_bad_metadata_is_refused(metadata: object) -> None:
    (line,) = faults(metadata=metadata)
    assert line.startswith("metadata")


def test_waivers_are_names_that_the_level_lets_waive() -> None:
    spec = parse_spec("x", settings=SETTINGS, waive=["landlock", "disk", "landlock"])
    assert spec.waive == ("landlock", "disk")


@pytest.mark.parametrize(
    ("level", "waive", "told"),
    [
        ("high", ["landlok"], 'did you mean "landlock"?'),
        ("high", ["seccomp"], "nothing that can be waived is called 'seccomp'"),
        ("high", ["all"], "known are cpu, disk, landlock, memory, own_uid, pids"),
        ("high", [7], "nothing that can be waived is called 7"),
        ("high", "landlock", 'waive=("landlock",)'),
        ("high", 7, "not 7"),
        ("medium", ["landlock"], 'level "medium" does not require it: leave out "landlock"'),
        ("low", ["landlock"], 'level "low" is made of it: leave out "landlock"'),
    ],
)
def test_no_other_waiver_is_one(level: str, waive: object, told: str) -> None:
    (line,) = faults(security_level=level, waive=waive)
    assert line.startswith("waive: ")
    assert told in line


def test_all_faults_come_at_once() -> None:
    lines = faults(
        "",
        resources={"memroy": 1, "cpu": 0},
        timeout=0,
        security_level="hgih",
        env={"-": ""},
        files={"/": b""},
        metadata={"a": 0},
    )
    assert [line.split(":")[0] for line in lines] == [
        "name",
        "resources.memroy",
        "resources.cpu",
        "timeout",
        "security_level",
        "env.'-'",
        "files.'/'",
        "metadata.'a'",
    ]
