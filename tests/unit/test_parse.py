"""What users write is read exactly, and nonsense is refused with its path."""

from __future__ import annotations

from contextlib import suppress

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_sdk.errors import ConfigError
from sandbox_sdk.parse import (
    LARGEST_SIZE,
    Faults,
    parse_count,
    parse_flag,
    parse_level,
    parse_mapping,
    parse_number,
    parse_seconds,
    parse_size,
    parse_text,
)
from sandbox_sdk.resources import RESOURCE_FIELDS, parse_resources
from sandbox_sdk.values import MIB, Resources


@pytest.mark.parametrize(
    ("written", "size"),
    [
        (1, 1),
        ("1024", 1024),
        ("7B", 7),
        ("2GB", 2 * 10**9),
        ("2gb", 2 * 10**9),
        ("2 GB", 2 * 10**9),
        (" 2GB ", 2 * 10**9),
        ("512MiB", 512 * 2**20),
        ("1.5GiB", 3 * 2**29),
        ("0.5kB", 500),
        ("1.0000001kB", 1000),
        ("1TiB", 2**40),
        ("1TB", 10**12),
        (2**53, 2**53),
        ("9007199254740992", 2**53),
    ],
)
def test_sizes(written: object, size: int) -> None:
    assert parse_size(written, "resources.memory") == size


@pytest.mark.parametrize(
    "written",
    [
        *(True, False, None, 0, -1, 1.5, float("nan"), float("inf"), 2**53 + 1, 10**400),
        *("", " ", "2 potatoes", "2G", "2Gi", "GB", "-1GB", "+1GB", "0", "0.4B", "1e3", "1_000"),
        *("2  GB", "1.GB", ".5GB", "1,5GB", "2GB\0", "\u0662GB", "9" * 400, "9100TB", "inf", "nan"),
        *(b"2GB", [1], {"GB": 2}),
    ],
)
def test_what_is_no_size_is_refused_with_its_path(written: object) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_size(written, "resources.memory")
    (line,) = caught.value.faults
    assert line.startswith("resources.memory: ")
    assert len(line) < 200


@given(st.integers(1, LARGEST_SIZE))
def test_a_size_in_bytes_is_itself_however_it_is_written(size: int) -> None:
    assert parse_size(size, "x") == parse_size(str(size), "x") == parse_size(f"{size} b", "x")


@given(st.one_of(st.text(max_size=20), st.binary(), st.floats(), st.none(), st.booleans()))
def test_any_input_is_a_size_or_a_config_error(written: object) -> None:
    with suppress(ConfigError):
        assert 1 <= parse_size(written, "x") <= LARGEST_SIZE


@pytest.mark.parametrize(("written", "count"), [(1, 1), ("256", 256), (2**40, 2**40)])
def test_counts(written: object, count: int) -> None:
    assert parse_count(written, "pids") == count


@pytest.mark.parametrize("written", [True, 0, -1, 1.0, "1.0", "", "x", None, [], "\u0661"])
def test_what_is_no_count_is_refused(written: object) -> None:
    with pytest.raises(ConfigError, match=r"^pids: "):
        parse_count(written, "pids")


@pytest.mark.parametrize(("written", "number"), [(1, 1.0), (0.5, 0.5), ("0.5", 0.5), ("2", 2.0)])
def test_numbers(written: object, number: float) -> None:
    assert parse_number(written, "cpu") == number


@pytest.mark.parametrize(
    "written", [True, 0, 0.0, -1, "-1", "", "1e3", float("nan"), float("inf"), 10**400, None, []]
)
def test_what_is_no_number_above_0_is_refused(written: object) -> None:
    with pytest.raises(ConfigError, match=r"^cpu: "):
        parse_number(written, "cpu")


def test_no_bound_has_a_word() -> None:
    assert parse_seconds("none", "timeout") is None
    assert parse_seconds(None, "timeout") is None
    assert parse_seconds("20", "timeout") == 20.0
    with pytest.raises(ConfigError, match=r"^timeout: must be a finite number of seconds above 0"):
        parse_seconds(float("inf"), "timeout")


def test_flags() -> None:
    assert parse_flag(True, "x") is parse_flag("Yes", "x") is True
    assert parse_flag("off", "x") is False
    wrong: object
    for wrong in (1, 0, None, "maybe", []):
        with pytest.raises(ConfigError, match="x: must be true or false"):
            parse_flag(wrong, "x")


def test_levels_get_a_hint() -> None:
    assert parse_level("high", "security.level") == "high"
    with pytest.raises(ConfigError, match='did you mean "high"'):
        parse_level("hgih", "security.level")
    with pytest.raises(ConfigError, match="no security level a list"):
        parse_level(["high"], "security.level")


def test_wrong_text_is_not_shown_as_it_may_be_a_secret() -> None:
    wrong: object
    for wrong in ("hush\nhush", 1234567, ["hush"]):
        with pytest.raises(ConfigError) as caught:
            parse_text(wrong, "api_key")
        assert "hush" not in str(caught.value)
        assert "1234567" not in str(caught.value)


def test_names_of_a_mapping_are_text() -> None:
    assert parse_mapping(None, "env") == {}
    wrong: object
    for wrong in ([], "a", {1: 2}):
        with pytest.raises(ConfigError, match=r"^env: "):
            parse_mapping(wrong, "env")


def test_resources_replace_only_what_they_name() -> None:
    found = parse_resources({"memory": "2GB", "cpu": "0.5"}, Resources(pids=9))
    assert found == Resources(memory_bytes=2 * 10**9, cpu=0.5, pids=9)


def test_every_resource_has_a_name_and_its_default_is_allowed() -> None:
    assert parse_resources(Resources(), Resources()) == Resources()
    assert set(RESOURCE_FIELDS.values()) == {f.name for f in attrs.fields(Resources)}


def test_all_faults_of_resources_come_at_once() -> None:
    wrong = {"memroy": 1, "memory": "31MiB", "pids": 3, "cpu": 1025, "disk": True, "open_files": 2}
    with pytest.raises(ConfigError) as caught:
        parse_resources(wrong, Resources(), "default_resources")
    assert caught.value.faults == (
        'default_resources.memroy: unknown; did you mean "memory"?',
        "default_resources.memory: must be at least 32MiB, not '31MiB'",
        "default_resources.pids: must be at least 4, not 3",
        "default_resources.cpu: must be at most 1024, not 1025",
        (
            'default_resources.disk: must be a size such as "512MiB", "2GB" or a whole number of '
            "bytes, not True"
        ),
        "default_resources.open_files: must be at least 16, not 2",
    )


def test_a_resources_value_is_checked_too() -> None:
    with pytest.raises(ConfigError, match=r"resources\.memory: must be at least 32MiB"):
        parse_resources(Resources(memory_bytes=MIB), Resources())


def test_collected_faults_name_their_source() -> None:
    faults = Faults()
    with faults.collect("config.yaml"):
        parse_flag(1, "a")
    with faults.collect():
        parse_flag(2, "b")
    with pytest.raises(ConfigError) as caught:
        faults.check()
    assert str(caught.value) == (
        "2 faults:\n  a: must be true or false, not 1 (from config.yaml)"
        "\n  b: must be true or false, not 2"
    )
    Faults().check()
