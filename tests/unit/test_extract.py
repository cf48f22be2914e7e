"""What leaves a workspace: the files asked for, within bounds, and nothing that is no file."""

from __future__ import annotations

import hashlib
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_sdk.engine.extract import Bounds, collect, expression, open_file
from sandbox_sdk.values import Collected

FILES = (
    "a.txt",
    "b.csv",
    "out/a.txt",
    "out/deep/er/a.txt",
    "out/deep/b.csv",
    ".hidden",
    "a[1].txt",
)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    for name in FILES:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"content of {name}")
    return folder


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "kept"


def paths(collected: Collected) -> set[str]:
    return {artifact.path for artifact in collected.artifacts}


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["*"], {"a.txt", "b.csv", ".hidden", "a[1].txt"}),
        (["**"], set(FILES)),
        (["*.txt"], {"a.txt", "a[1].txt"}),
        (["**/*.txt"], {"a.txt", "out/a.txt", "out/deep/er/a.txt", "a[1].txt"}),
        (["out/*"], {"out/a.txt"}),
        (["out/**"], {"out/a.txt", "out/deep/er/a.txt", "out/deep/b.csv"}),
        (["out/**/a.txt"], {"out/a.txt", "out/deep/er/a.txt"}),
        (["?.csv"], {"b.csv"}),
        (["./a.txt", "/workspace/b.csv"], {"a.txt", "b.csv"}),
        (["a[1].txt"], {"a[1].txt"}),  # brackets are no classes here
        (["a.txt|b.csv", "(a).txt", "a+"], set()),
        (["nothing"], set()),
        (["../kept/**", "/etc/*", "out/../a.txt"], set()),
        ([], set()),
    ],
)
def test_patterns(workspace: Path, kept: Path, patterns: list[str], expected: set[str]) -> None:
    """``*`` and ``?`` stay within one name, ``**`` crosses folders, all else is itself."""
    assert paths(collect(workspace, patterns, kept)) == expected


@given(st.text("ab/*?.[]\\{}()^$|+\n", max_size=12))
def test_any_pattern_is_taken(tmp_path_factory: pytest.TempPathFactory, pattern: str) -> None:
    """No text is an error as a pattern, and one without wildcards matches itself alone."""
    folder = tmp_path_factory.mktemp("workspace")
    (folder / "a").touch()
    found = paths(collect(folder, [pattern], folder.parent / "kept"))
    if not re.search(r"[*?]", pattern):
        assert found == ({"a"} if pattern in ("a", "./a") else set())


def _simple(pattern: str) -> str:
    words = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
    return "(?s:" + "".join(words.get(part) or re.escape(part) for part in parts) + ")"


@given(
    st.lists(st.sampled_from(["a", "b", "/", "?", "*", "**", "**/"]), max_size=8),
    st.text(alphabet="ab/\n", max_size=9),
)
def test_a_pattern_means_what_it_says(words: list[str], path: str) -> None:
    pattern = "".join(words)
    bare = pattern.removeprefix("./").removeprefix("/workspace/")
    is_match = re.fullmatch(expression([pattern]), path) is not None
    assert is_match == (re.fullmatch(_simple(bare), path) is not None)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [("**/b/**/b/**/b/**/b/**/x", "b/" * 2000 + "y"), ("*_*_*_*_*_*_*.csv", "_" * 255)],
)
def test_no_name_takes_a_pattern_long(pattern: str, name: str) -> None:
    """Nothing else runs meanwhile, so that code inside would hold up all other sandboxes."""
    assert re.fullmatch(expression([pattern]), name) is None


def test_content_is_stored_by_digest(workspace: Path, kept: Path) -> None:
    """A file lands once under the digest of what was read, and is described."""
    (workspace / "same.txt").write_text("content of a.txt")
    collected = collect(workspace, ["a.txt", "same.txt"], kept)
    digest = hashlib.sha256(b"content of a.txt").hexdigest()
    stored = [path for path in kept.rglob("*") if path.is_file()]
    assert stored == [kept / "sha256" / digest[:2] / digest[2:]]
    assert stored[0].read_text() == "content of a.txt"
    for artifact in collected.artifacts:
        assert (artifact.sha256, artifact.size_bytes) == (digest, 16)
        assert artifact.media_type == "text/plain"


def _link(path: Path) -> None:
    path.symlink_to("/etc/hostname")


def _link_inside(path: Path) -> None:
    path.symlink_to("a.txt")


def _folder_link(path: Path) -> None:
    path.symlink_to("out")


def _socket(path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    folder = os.open(path.parent, os.O_PATH)  # the path itself may be too long for a socket
    listener.bind(f"/proc/self/fd/{folder}/{path.name}")
    listener.close()
    os.close(folder)


@pytest.mark.parametrize("make", [_link, _link_inside, _folder_link, os.mkfifo, _socket])
def test_only_regular_files_leave(
    workspace: Path, kept: Path, make: Callable[[Path], None]
) -> None:
    """Links, wherever they lead, pipes and sockets stay, and the reason is told."""
    make(workspace / "odd")
    collected = collect(workspace, ["odd", "odd/*"], kept)
    assert collected.artifacts == ()
    assert collected.skipped == {"odd": "not a regular file"}
    assert not kept.exists()


def test_bounds(workspace: Path, kept: Path) -> None:
    """Files, bytes and names are bounded, and each that stays for it is told."""
    one = collect(workspace, ["**"], kept, Bounds(files=1))
    assert (len(one.artifacts), len(one.skipped)) == (1, len(FILES) - 1)
    assert set(one.skipped.values()) == {"more than 1 files match"}
    small = collect(workspace, ["**"], kept, Bounds(bytes=40))
    assert sum(artifact.size_bytes for artifact in small.artifacts) <= 40
    assert set(small.skipped.values()) == {"larger than what may still be copied"}
    few = collect(workspace, ["**"], kept, Bounds(entries=3))
    assert len(few.artifacts) == 3
    assert few.skipped == {"...": "more than 3 names in the workspace"}


def test_what_was_left_out_is_bounded_too(workspace: Path, kept: Path) -> None:
    """A million links are told as one line, after the first thousand."""
    for number in range(1005):
        (workspace / f"link-{number}").symlink_to("x")
    skipped = collect(workspace, ["link-*"], kept).skipped
    assert len(skipped) == 1001
    assert skipped["..."] == "more than 1000 files were left out"


def test_names_that_are_no_text(workspace: Path, kept: Path) -> None:
    """Names of any bytes are told escaped; their files leave."""
    names = [b"\xff\xfe", b"line\nend", b"a" * 255, "\u202e".encode()]
    for name in names:
        (workspace / os.fsdecode(name)).write_bytes(name)
    found = paths(collect(workspace, ["**"], kept)) - set(FILES)
    assert found == {r"\xff\xfe", "line\nend", "a" * 255, "\u202e"}


def test_sparse_file_costs_no_more_than_its_bound(workspace: Path, kept: Path) -> None:
    """A file that claims five gigabytes stays, and what was copied of it is removed."""
    with (workspace / "huge").open("wb") as file:
        file.truncate(5 * 1024**3)
    collected = collect(workspace, ["huge"], kept, Bounds(bytes=10_000_000))
    assert collected.skipped == {"huge": "larger than what may still be copied"}
    assert [path for path in kept.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    "path", ["../outside", "/etc/hostname", "link", "folder-link/a.txt", "pipe"]
)
def test_open_file_stays_inside(workspace: Path, path: str) -> None:
    """One file is opened by the same rules: no way out, no link, no pipe."""
    (workspace.parent / "outside").write_text("the host's")
    (workspace / "link").symlink_to("a.txt")
    (workspace / "folder-link").symlink_to("out")
    os.mkfifo(workspace / "pipe")
    with pytest.raises(OSError, match=r"."):
        open_file(workspace, path)
    with os.fdopen(open_file(workspace, "out/a.txt"), "rb") as file:
        assert file.read() == b"content of out/a.txt"
