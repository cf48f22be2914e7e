"""Signing keys by which two machines know each other."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sandbox_sdk.crypto_utils.identities import CLIENT, WORKER, identity, parse_worker_keys
from sandbox_sdk.crypto_utils.keys import SigningKey
from sandbox_sdk.errors import ConfigError


def test_a_key_is_made_once_and_stays(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    first = identity(folder, CLIENT)
    assert identity(folder, CLIENT) == first
    assert identity(folder, WORKER) != first
    assert (folder / CLIENT).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in folder.glob(".*")] == []


def test_all_who_make_it_at_once_have_the_same(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: identity(tmp_path, WORKER).reveal(), range(32)))
    assert len(set(found)) == 1


@pytest.mark.parametrize(
    ("content", "mode", "why"),
    [
        ("", 0o600, "holds no key"),
        ("00" * 31, 0o600, "holds no key"),
        ("zz" * 32, 0o600, "holds no key"),
        ("00" * 32, 0o644, "chmod 600"),
        ("00" * 9000, 0o600, "too large"),
    ],
)
def test_a_file_that_is_no_key_is_told_and_left(
    tmp_path: Path, content: str, mode: int, why: str
) -> None:
    path = tmp_path / CLIENT
    path.write_text(content)
    os.chmod(path, mode)
    with pytest.raises(ConfigError, match=why) as caught:
        identity(tmp_path, CLIENT)
    assert str(path) in str(caught.value)
    assert path.read_text() == content


def test_worker_keys_are_read_as_they_are_printed() -> None:
    keys = [SigningKey.generate().public for _ in range(3)]
    first, second, third = (key.to_text() for key in keys)
    assert parse_worker_keys(f"{first}, {second} worker@there\n\n{third}\n") == tuple(keys)
    with pytest.raises(ConfigError, match="public key"):
        parse_worker_keys(f"{first},ssh-rsa AAAA")
