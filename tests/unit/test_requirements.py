"""Packages may be written in many ways, and mean the same thing or are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox_sdk.errors import ConfigError
from sandbox_sdk.requirements import parse_packages, parse_preload

DIGEST = "a" * 64


def faults(value: object) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        parse_packages(value)
    return caught.value.faults


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("NumPy", "numpy"),
        (" ruamel_yaml >= 0.18 , < 0.20 ", "ruamel-yaml<0.20,>=0.18"),
        ("openai[aiohttp, Realtime]~=3.0", "openai[aiohttp,realtime]~=3.0"),
        ("a (==1.0)", "a==1.0"),
        ("a==1.*; python_version < '3.12'", "a==1.* ; python_version < '3.12'"),
        (f"a==1 --hash=sha256:{DIGEST}", f"a==1 --hash=sha256:{DIGEST}"),
        (f"a==1 ; os_name == 'posix' --hash sha256:{DIGEST}",
         f"a==1 ; os_name == 'posix' --hash=sha256:{DIGEST}"),
        ("torch==2.13.0+cpu", "torch==2.13.0+cpu"),
    ],
)  # fmt: skip
def test_spellings_of_a_requirement_are_one(written: str, read: str) -> None:
    assert parse_packages([written]) == (read,)


def test_order_and_repetition_mean_nothing() -> None:
    assert parse_packages(["b", "A", "a"]) == parse_packages(("a", "b")) == ("a", "b")


@pytest.mark.parametrize("nothing", [None, [], ()])
def test_nothing_is_nothing(nothing: object) -> None:
    assert parse_packages(nothing) == ()


@pytest.mark.parametrize(
    ("written", "advice"),
    [
        ("numpy=2.4", 'did you mean "numpy==2.4"'),
        ("numpy 2.4", 'did you mean "numpy==2.4"'),
        ("numpy@2.4", 'did you mean "numpy==2.4"'),
        ("-r other.txt", "options are not read"),
        ("--index-url=https://x", "options are not read"),
        ("a @ https://example.org/a.whl", "an address, path or repository is refused"),
        ("git+https://example.org/a", "an address, path or repository is refused"),
        ("./a", "an address, path or repository is refused"),
        ("", "write for example"),
        ("a\nb", "write for example"),
        ("a==1 --hash=md5:00", "write for example"),
        (7, "must be a requirement"),
        (None, "must be a requirement"),
    ],
)
def test_what_is_no_requirement_is_refused_with_what_was_meant(
    written: object, advice: str
) -> None:
    (line,) = faults([written])
    assert line.startswith("packages.0: ")
    assert advice in line


@pytest.mark.parametrize(
    "text",
    ["a{}!", "a[b]{}!", "a>=1{}!", "a;{}x#", "a;x{}y#", "a>=1{},{}!", "a{}=", "a@{}!", "a\n{}!"],
)
def test_no_requirement_takes_long_to_refuse(text: str) -> None:
    """A server checks those of all its tenants, and does nothing else meanwhile."""
    with pytest.raises(ConfigError, match="no requirement"):
        parse_packages([text.replace("{}", " " * 5000)])


@pytest.mark.parametrize("value", [7, b"numpy", {}.items, "numpy", "numpy==2"])
def test_what_is_neither_list_nor_file_is_refused(value: object) -> None:
    (line,) = faults(value)
    assert line.startswith("packages")


def test_all_faults_are_told_at_once() -> None:
    assert [line.split(":")[0] for line in faults(["a=1", "b", "./c"])] == [
        "packages.0",
        "packages.2",
    ]


def test_a_requirements_file_is_the_same_as_its_lines(tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text(
        f"# what we need\nRich>=13  # for tables\n\nidna==3.10 \\\n    --hash=sha256:{DIGEST}\n"
    )
    assert parse_packages(file) == parse_packages(
        ["rich>=13", f"idna==3.10 --hash=sha256:{DIGEST}"]
    )
    assert parse_packages(str(file)) == parse_packages(file)


def test_faults_of_a_file_name_its_lines(tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text("a\n-c constraints.txt\nb \\\n  ==1\n./c\n")
    assert [line.split(":")[0] for line in faults(file)] == [
        "packages (requirements.txt), line 2",
        "packages (requirements.txt), line 5",
    ]


def test_a_lock_file_takes_the_wheels_it_locked_and_no_others(tmp_path: Path) -> None:
    file = tmp_path / "pylock.toml"
    file.write_text(
        'lock-version = "1.0"\n[[packages]]\nname = "Idna"\nversion = "3.10"\n'
        "marker = \"python_version >= '3.11'\"\n"
        f'wheels = [{{ url = "https://example.org/x.whl", hashes = {{ sha256 = "{DIGEST}" }} }}]\n'
    )
    assert parse_packages(file) == (
        f"idna==3.10 ; python_version >= '3.11' --hash=sha256:{DIGEST}",
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('lock-version = "2.0"\npackages = []', "no lock file of version 1"),
        ("name", "is not TOML"),
        ('lock-version = "1.0"\npackages = []', "names no package"),
        (
            'lock-version = "1.0"\n[[packages]]\nname = "a"\nvcs = {}',
            "package 0: has no name, version",
        ),
        ('lock-version = "1.0"\npackages = [1]', "package 0: has no name, version"),
    ],
)
def test_a_lock_file_that_would_need_building_is_refused(
    tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "pylock.toml").write_text(text)
    (line,) = faults(tmp_path / "pylock.toml")
    assert said in line


@pytest.mark.parametrize("name", ["uv.lock", "poetry.lock", "pyproject.toml"])
def test_other_lock_files_are_refused_with_the_way_to_one(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("")
    (line,) = faults(tmp_path / name)
    assert "uv export --format pylock.toml" in line


def test_a_file_that_is_not_there_or_no_text_is_told(tmp_path: Path) -> None:
    assert "No such file" in faults(tmp_path / "requirements.txt")[0]
    (tmp_path / "x.txt").write_bytes(b"\xff")
    assert "UTF-8" in faults(tmp_path / "x.txt")[0]


def test_modules_to_preload_keep_their_order() -> None:
    assert parse_preload(["numpy", "xml.dom", "numpy"]) == ("numpy", "xml.dom")
    assert parse_preload(None) == ()


@pytest.mark.parametrize("value", ["numpy", 7, [7], ["numpy as np"], ["a."], ["os; x"], [""]])
def test_what_is_no_module_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match="preload"):
        parse_preload(value)
