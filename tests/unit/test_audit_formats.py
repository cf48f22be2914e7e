"""The tree, the signed notes and the lines of the audit log, against what others fixed."""

from __future__ import annotations

import base64
import hashlib
import json

import pytest

from sandbox_sdk.audit.events import Actor, Entry, Line, line_hash
from sandbox_sdk.audit.merkle import Tree, leaf_hash, node_hash
from sandbox_sdk.audit.notes import Checkpoint, Verifier
from sandbox_sdk.crypto_utils import SigningKey, VerifyKey
from sandbox_sdk.errors import ConfigError, IntegrityError

# The leaves and roots with which implementations of RFC 6962 test their trees.
LEAVES = [
    *("", "00", "10", "2021", "3031", "40414243", "5051525354555657"),
    "606162636465666768696a6b6c6d6e6f",
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]

KEY = SigningKey(bytes(range(32)))  # the same in all processes that run these tests
TRUSTED = [Verifier(name="log", key=KEY.public)]
POINT = Checkpoint(origin="log", size=7, root=bytes(range(32)))


def whole(leaves: list[bytes]) -> bytes:
    """The root as the RFC defines it, by halves."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return leaf_hash(leaves[0])
    half = 1 << (len(leaves) - 1).bit_length() - 1
    return node_hash(whole(leaves[:half]), whole(leaves[half:]))


def test_roots_are_those_of_rfc_6962() -> None:
    tree = Tree()
    assert tree.root.hex() == ROOTS[0]
    for leaf, root in zip(LEAVES, ROOTS[1:], strict=True):
        tree.append(bytes.fromhex(leaf))
        assert tree.root.hex() == root


def test_a_tree_goes_on_from_its_frontier() -> None:
    leaves = [str(number).encode() for number in range(150)]
    tree = Tree()
    for size, leaf in enumerate(leaves, start=1):
        tree = Tree(tree.size, tree.frontier)
        tree.append(leaf)
        assert tree.root == whole(leaves[:size])
    with pytest.raises(ValueError, match="full subtrees of 3 leaves"):
        Tree(3, [bytes(32)])
    with pytest.raises(ValueError, match="full subtrees"):
        Tree(1, [b"short"])


def test_a_note_of_gos_own_documentation_is_signed_as_ours_are() -> None:
    vkey = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
    text = (
        "If you think cryptography is the answer to your problem,\n"
        "then you don't know what your problem is.\n"
    )
    signature = (
        "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6Ry"
    )
    signature += "yBwJnAM="
    verifier = Verifier.parse(vkey)
    assert verifier.to_text() == vkey
    signed = base64.b64decode(signature)
    assert signed[:4] == verifier.id
    assert verifier.key.verify(text.encode(), signed[4:])


def parse_note(note: str, vkey: str) -> tuple[str, int, bytes]:
    """A second, plain reading of c2sp.org/tlog-checkpoint and signed-note."""
    name, key_id, key = vkey.split("+", 2)
    public = base64.b64decode(key)
    assert public[0] == 1
    assert hashlib.sha256(name.encode() + b"\n" + public).hexdigest()[:8] == key_id
    text, line, last = note.split("\n\n")[0] + "\n", note.split("\n\n")[1], note[-1]
    assert last == "\n"
    dash, signer, encoded = line.rstrip("\n").split(" ")
    assert (dash, signer) == ("\u2014", name)
    raw = base64.b64decode(encoded)
    assert raw[:4].hex() == key_id
    assert VerifyKey(public[1:]).verify(text.encode(), raw[4:])
    origin, size, root, end = text.split("\n")
    assert end == ""
    return origin, int(size), base64.b64decode(root)


def test_another_parser_reads_our_checkpoints() -> None:
    found = parse_note(POINT.sign(KEY), TRUSTED[0].to_text())
    assert found == (POINT.origin, POINT.size, POINT.root)
    assert Checkpoint.parse(POINT.sign(KEY), TRUSTED) == POINT


def test_a_checkpoint_with_anothers_signature_besides_is_still_ours() -> None:
    witness = "\u2014 witness AAAAAAAAAA==\n"
    assert Checkpoint.parse(POINT.sign(KEY) + witness, TRUSTED) == POINT


NOTE = POINT.sign(KEY)


@pytest.mark.parametrize(
    "note",
    [
        NOTE.replace("\n7\n", "\n8\n"),
        NOTE.replace("\n7\n", "\n07\n"),
        NOTE.replace("\n7\n", "\n-7\n"),
        NOTE.replace("\n\n", "\n"),
        NOTE.replace("\n\n", "\nmore\n\n"),
        NOTE.replace("\u2014", "-"),
        NOTE[:-1],
        NOTE[: NOTE.index("\u2014")],
        NOTE + "\u2014 log !!\n",
        POINT.sign(SigningKey.generate()),
        Checkpoint(origin="other", size=7, root=POINT.root).sign(KEY),
        "",
    ],
)
def test_what_is_no_checkpoint_of_ours_is_refused(note: str) -> None:
    with pytest.raises(IntegrityError):
        Checkpoint.parse(note, TRUSTED)


@pytest.mark.parametrize("text", ["", "a+b", "log+00000000+AAAA", TRUSTED[0].to_text()[:-2] + "AA"])
def test_what_is_no_public_key_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="audit key"):
        Verifier.parse(text)


def test_a_line_is_a_cloudevent_in_ascii_and_reads_back() -> None:
    entry = Entry(
        type="sandbox-sdk.command.began",
        subject="sb_1",
        data={"actor": Actor(method="local", name="me", uid=7, pid=9), "path": "\u202eü\n\x1b[2J"},
        content=["/bin/bash", "-c", "x"],
        time=1.5,
    )
    raw = entry.to_line(origin="log", sequence=3, previous="ab")
    assert raw.isascii()
    assert raw.count(b"\n") == 1
    assert not set(raw[:-1]) & set(range(32))
    fields = json.loads(raw)
    required = {"specversion": "1.0", "source": "log", "type": entry.type, "subject": "sb_1"}
    assert required.items() <= fields.items()
    assert fields["id"] == fields["sequence"] == f"{3:020}"
    assert fields["time"] == "1970-01-01T00:00:01.500Z"
    assert fields["data"]["actor"] == {"method": "local", "name": "me", "uid": 7, "pid": 9}
    assert fields["data"]["sha256"] == hashlib.sha256(b'["/bin/bash","-c","x"]').hexdigest()
    line = Line.parse(raw)
    assert (line.sequence, line.previous, line.subject) == (3, "ab", "sb_1")
    assert line_hash(raw) == hashlib.sha256(raw).hexdigest()


def test_secrets_stand_in_no_line() -> None:
    entry = Entry(type="x", subject="a-s3cret", data={"n s3cret": ["s3cret", {"k": "xs3cretx"}]})
    raw = entry.to_line(origin="log", sequence=1, previous="", secrets=["s3cret"])
    assert b"s3cret" not in raw
    assert raw.count(b"[redacted]") == 4


def test_a_line_has_a_bound() -> None:
    entry = Entry(type="x", data={"long": "é" * 10**6, "many": ["y" * 2000] * 10**4})
    assert len(entry.to_line(origin="log", sequence=1, previous="")) < 100_000


@pytest.mark.parametrize(
    "raw", [b"", b"{}\n", b"[" * 10**5 + b"\n", b"\xff\n", b'{"specversion":"1.0"}\n', b"null\n"]
)
def test_what_is_no_line_is_refused(raw: bytes) -> None:
    with pytest.raises(IntegrityError, match="no line of an audit log"):
        Line.parse(raw)
