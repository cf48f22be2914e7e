"""Records, streams and files: what is sealed opens where it belongs, and nowhere else."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

import attrs
import pytest

from sandbox_sdk.crypto_utils import (
    DataKey,
    Label,
    Sealer,
    Unsealer,
    records,
    seal,
    seal_file,
    seal_stream,
    sodium,
    streams,
    unseal,
    unseal_file,
    unseal_stream,
)
from sandbox_sdk.errors import IntegrityError

KEY = DataKey.generate()
HERE = Label(tenant="t", sandbox="sb_1", type="event", id="7", version=3)
ELSEWHERE = [
    attrs.evolve(HERE, tenant="u"),
    attrs.evolve(HERE, sandbox="sb_2"),
    attrs.evolve(HERE, type="artifact"),
    attrs.evolve(HERE, id="8"),
    attrs.evolve(HERE, version=2),
    # The same letters, cut elsewhere.
    attrs.evolve(HERE, tenant="ts", sandbox="b_1"),
    attrs.evolve(HERE, type="event7", id=""),
]


def sealed_stream(data: bytes, label: Label | None = HERE) -> bytes:
    target = io.BytesIO()
    seal_stream(KEY, io.BytesIO(data), target, label)
    return target.getvalue()


def opened_stream(sealed: bytes, label: Label | None = HERE, key: DataKey = KEY) -> bytes:
    return b"".join(unseal_stream(key, io.BytesIO(sealed), label))


def test_a_record_opens_where_it_belongs() -> None:
    sealed = seal(KEY, b"secret", HERE)
    assert unseal(KEY, sealed, HERE) == b"secret"
    assert b"secret" not in sealed
    assert len(sealed) == len(b"secret") + records.OVERHEAD
    assert seal(KEY, b"secret", HERE) != sealed
    assert records.record_key_id(sealed) == KEY.id
    assert unseal(KEY, seal(KEY, b"")) == b""


@pytest.mark.parametrize("label", ELSEWHERE, ids=str)
def test_what_was_moved_elsewhere_does_not_open(label: Label) -> None:
    with pytest.raises(IntegrityError):
        unseal(KEY, seal(KEY, b"secret", HERE), label)
    with pytest.raises(IntegrityError):
        opened_stream(sealed_stream(b"secret"), label)


def test_another_key_does_not_open_and_both_are_named() -> None:
    other = DataKey.generate()
    with pytest.raises(IntegrityError, match=f"{KEY.id}.*{other.id}"):
        unseal(other, seal(KEY, b"secret"))
    with pytest.raises(IntegrityError, match=f"{KEY.id}.*{other.id}"):
        opened_stream(sealed_stream(b"secret"), key=other)


def test_a_record_commits_to_its_key() -> None:
    """Were there a ciphertext that two keys open, the header would still be for one of them."""
    other = DataKey.generate()
    sealed = seal(KEY, b"secret")
    renamed = sealed[:5] + other.id_bytes + sealed[13:]
    with pytest.raises(IntegrityError, match="another of the same id"):
        unseal(other, renamed)


def test_names_of_files_that_are_no_unicode_can_be_labels() -> None:
    odd = Label(id=os.fsdecode(b"\xff\xfe"))
    assert unseal(KEY, seal(KEY, b"x", odd), odd) == b"x"


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 131072, 200_000])
def test_a_stream_of_any_length_opens(size: int) -> None:
    data = os.urandom(size)
    sealed = sealed_stream(data)
    assert opened_stream(sealed) == data
    chunks = max(1, -(-size // streams.CHUNK))
    overhead = streams.HEADER_BYTES + chunks * sodium.STREAM_CHUNK_BYTES
    assert len(sealed) == size + overhead


def test_a_source_that_gives_a_few_bytes_at_a_time_is_sealed_the_same() -> None:
    class Dripping(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(size or 1, 1000))

    target = io.BytesIO()
    data = os.urandom(150_000)
    seal_stream(KEY, Dripping(data), target)
    assert b"".join(unseal_stream(KEY, Dripping(target.getvalue()))) == data


def pieces(sealed: bytes) -> tuple[bytes, list[bytes]]:
    body = sealed[streams.HEADER_BYTES :]
    step = streams.SEALED_CHUNK
    return sealed[: streams.HEADER_BYTES], [
        body[at : at + step] for at in range(0, len(body), step)
    ]


TAMPERED: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "the last chunk is missing": lambda c: c[:-1],
    "only the first is left": lambda c: c[:1],
    "nothing is left": lambda c: [],
    "a middle one is missing": lambda c: [c[0], *c[2:]],
    "two are swapped": lambda c: [c[1], c[0], *c[2:]],
    "one is twice there": lambda c: [c[0], *c],
    "the last is twice there": lambda c: [*c, c[-1]],
    "something follows": lambda c: [*c, b"x"],
    "the last is cut": lambda c: [*c[:-1], c[-1][:-1]],
    "one is cut": lambda c: [c[0][:-1], *c[1:]],
    "another stream's chunk": lambda c: [c[0], pieces(sealed_stream(bytes(200_000)))[1][1], *c[2:]],
}


@pytest.mark.parametrize("change", TAMPERED.values(), ids=TAMPERED)
def test_a_stream_that_was_tampered_with_does_not_open(
    change: Callable[[list[bytes]], list[bytes]],
) -> None:
    header, chunks = pieces(sealed_stream(os.urandom(200_000)))
    assert len(chunks) == 4
    with pytest.raises(IntegrityError):
        opened_stream(header + b"".join(change(chunks)))


def test_chunks_are_sealed_and_opened_one_by_one() -> None:
    sealer = Sealer(KEY, HERE)
    unsealer = Unsealer(KEY, sealer.header, HERE)
    finished: list[bool] = []
    for chunk, final in ((b"first", False), (b"", True)):
        assert unsealer.unseal(sealer.seal(chunk, final=final)) == chunk
        finished.append(unsealer.finished)
    assert finished == [False, True]
    with pytest.raises(IntegrityError, match="follows the last"):
        unsealer.unseal(sealer.seal(b"more"))


def test_a_file_is_sealed_and_opened_for_its_owner_alone(tmp_path: Path) -> None:
    plain, sealed, opened = tmp_path / "plain", tmp_path / "sealed", tmp_path / "opened"
    plain.write_bytes(b"secret" * 30_000)
    seal_file(KEY, plain, sealed, HERE)
    unseal_file(KEY, sealed, opened, HERE)
    assert opened.read_bytes() == plain.read_bytes()
    assert b"secret" not in sealed.read_bytes()
    assert {path.stat().st_mode & 0o777 for path in (sealed, opened)} == {0o600}


def test_a_file_cut_at_a_chunk_leaves_the_target_as_it_was(tmp_path: Path) -> None:
    sealed, target = tmp_path / "sealed", tmp_path / "target"
    sealed.write_bytes(sealed_stream(os.urandom(200_000))[: streams.HEADER_BYTES + 2 * 65553])
    target.write_bytes(b"before")
    with pytest.raises(IntegrityError, match="cut short") as caught:
        unseal_file(KEY, sealed, target, HERE)
    assert caught.value.path == str(sealed)
    assert target.read_bytes() == b"before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sealed", "target"]


def test_a_full_disk_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plain").write_bytes(b"x")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        seal_file(KEY, tmp_path / "plain", tmp_path / "sealed")
    assert [path.name for path in tmp_path.iterdir()] == ["plain"]


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(OSError, match="symbolic"):
        seal_file(KEY, tmp_path / "link", tmp_path / "sealed")


def test_what_is_written_before_the_end_is_all_real() -> None:
    """A stream that raises has yielded true data, which its docs say to throw away."""
    data = os.urandom(200_000)
    got: list[bytes] = []

    def read(source: IO[bytes]) -> None:
        got.extend(unseal_stream(KEY, source, HERE))

    with pytest.raises(IntegrityError):
        read(io.BytesIO(sealed_stream(data)[:-1]))
    assert data.startswith(b"".join(got))
