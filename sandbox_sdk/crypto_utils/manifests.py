"""Folders that prove what they hold: a manifest of digests, and its signature.

``MANIFEST.json`` names every file with its size and SHA-256, ``MANIFEST.json.sig`` signs it as
``ssh-keygen -Y verify`` accepts, and ``SHA256SUMS`` is for ``sha256sum -c``. The folder may come
from anybody: only plain files inside it are read, each bounded by what the manifest says.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import IO, Any, Literal

import attrs

from sandbox_sdk.crypto_utils import sshsig
from sandbox_sdk.crypto_utils.keys import SigningKey, VerifyKey
from sandbox_sdk.errors import IntegrityError

NAMESPACE = "sandbox-sdk-manifest@v1"
"""What the signature of a manifest is for, the ``-n`` of ``ssh-keygen -Y verify``."""

MANIFEST, SIGNATURE, SUMS = "MANIFEST.json", "MANIFEST.json.sig", "SHA256SUMS"

LARGEST_MANIFEST = 256 * 1024 * 1024
"""Bytes of the largest manifest that is read."""

_CHUNK = 1 << 20

Status = Literal["verified", "unpinned", "wrong_signer", "unsigned", "changed"]


@attrs.frozen(kw_only=True)
class Verification:
    """What ``verify_folder`` found.

    Attributes:
        folder: The folder.
        status: ``verified``: all is as a trusted key signed it. ``unpinned``: all is as the key in
            the folder signed it, which proves nothing about who that was. ``wrong_signer``: the
            same, and none of the trusted keys was it. ``unsigned``: all is as the manifest says,
            which anybody may have written. ``changed``: something is not as it was written.
        signer: The key that signed, unless nothing or something changed was signed.
        wrong: The first file, by name, that is not as it was written.
        detail: One sentence for people.
    """

    folder: Path
    status: Status
    signer: VerifyKey | None = None
    wrong: str | None = None
    detail: str

    @property
    def ok(self) -> bool:
        """Whether all is as a trusted key signed it."""
        return self.status == "verified"


class _Wrong(Exception):
    """A file that is not as it was written."""


def sign_manifest(key: SigningKey, manifest: bytes) -> bytes:
    """Return the content of ``MANIFEST.json.sig``."""
    return sshsig.sign(key, manifest, NAMESPACE).encode()


def verify_folder(folder: Path, trusted: Collection[VerifyKey] = ()) -> Verification:
    """Return whether a folder is as it was signed. Blocks on the disk.

    Args:
        folder: The folder that holds ``MANIFEST.json``.
        trusted: The keys of which one must have signed; never take them from the folder itself.

    Raises:
        IntegrityError: There is no such folder.
    """
    if not folder.is_dir():
        raise IntegrityError(f"{folder} is no folder to verify", path=str(folder))
    try:
        manifest = _read(folder, MANIFEST, LARGEST_MANIFEST)
        signer = _signer(folder, manifest)
        _check_files(folder, manifest, signed=signer is not None)
    except _Wrong as wrong:
        name, detail = wrong.args
        shown = f"{name}: {detail}"
        return Verification(folder=folder, status="changed", wrong=name, detail=shown)
    if signer is None:
        status: Status = "unsigned"
        detail = "every file is as the manifest says, but nobody signed it: anybody may have"
    elif signer in trusted:
        status = "verified"
        detail = f"every file is as {signer.fingerprint} signed it"
    elif trusted:
        status = "wrong_signer"
        detail = f"signed by {signer.fingerprint}, which is none of the keys you trust"
    else:
        status = "unpinned"
        detail = (
            f"signed by {signer.fingerprint}, a key found in the folder itself: ask its owner for "
            "the public key, and verify with that"
        )
    return Verification(folder=folder, status=status, signer=signer, detail=detail)


def _signer(folder: Path, manifest: bytes) -> VerifyKey | None:
    """Return whose signature the manifest has, proven; ``None`` if there is none."""
    if not os.path.lexists(folder / SIGNATURE):
        return None
    text = _read(folder, SIGNATURE, sshsig.LARGEST).decode("ascii", "replace")
    try:
        found = sshsig.SSHSignature.parse(text)
    except IntegrityError as error:
        raise _Wrong(SIGNATURE, error.message) from None
    if not found.verify(manifest, NAMESPACE):
        raise _Wrong(MANIFEST, "is not what was signed")
    return found.public


def _check_files(folder: Path, manifest: bytes, *, signed: bool) -> None:
    """Compare every file with the manifest, in the order of their names."""
    listed = _entries(manifest)
    found = _walk(folder)
    extra = {MANIFEST, SUMS, *([SIGNATURE] if signed else [])}
    for name in sorted({*listed, *found} - extra):
        if name not in listed:
            raise _Wrong(name, "is not in the manifest")
        if name not in found:
            raise _Wrong(name, "is missing")
        size, sha256 = listed[name]
        if _digest(folder, name, size) != sha256:
            raise _Wrong(name, "is not what the manifest says: its SHA-256 is another")
    sums = {name: sha256 for name, (_, sha256) in listed.items()}
    sums[MANIFEST] = hashlib.sha256(manifest).hexdigest()
    if signed:
        sums[SIGNATURE] = _digest(folder, SIGNATURE, sshsig.LARGEST)
    if SUMS in found and _read(folder, SUMS, LARGEST_MANIFEST) != sums_text(sums):
        raise _Wrong(SUMS, "does not say what the manifest says")


def sums_text(sums: Mapping[str, str]) -> bytes:
    """Return the content of ``SHA256SUMS`` for names and their digests."""
    return "".join(f"{sha256}  {name}\n" for name, sha256 in sorted(sums.items())).encode()


def _entries(manifest: bytes) -> dict[str, tuple[int, str]]:
    """Return the size and SHA-256 of every file that a manifest names."""
    entries: dict[str, tuple[int, str]] = {}
    try:
        parsed: dict[str, dict[str, Any]] = json.loads(manifest)
        files = parsed["files"].items()
    except (ValueError, RecursionError):
        raise _Wrong(MANIFEST, "is no JSON") from None
    except (KeyError, TypeError, AttributeError):
        raise _Wrong(MANIFEST, "names no files") from None
    for name, entry in files:
        match entry:
            case {"size_bytes": int() as size, "sha256": str() as sha256}:
                entries[name] = size, sha256
            case _:
                raise _Wrong(MANIFEST, f"has no size and SHA-256 for {name!r}")
    return entries


def _walk(folder: Path) -> set[str]:
    """Return the path of all that lies in a folder but folders; links are not followed."""
    found: set[str] = set()

    def fail(error: OSError) -> None:
        name = os.path.relpath(error.filename or folder, folder)
        raise _Wrong(name, f"cannot be read: {error.strerror}")

    for place, folders, files in os.walk(folder, onerror=fail):
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        found |= {os.path.relpath(Path(place) / name, folder) for name in (*files, *links)}
    return found


def _read(folder: Path, name: str, largest: int) -> bytes:
    with _open(folder, name) as file:
        data = file.read(largest + 1)
    if len(data) > largest:
        raise _Wrong(name, f"is larger than {largest} bytes")
    return data


def _digest(folder: Path, name: str, largest: int) -> str:
    """Return a file's SHA-256; one that is larger than it may be is not read on."""
    sha256, size = hashlib.sha256(), 0
    with _open(folder, name) as file:
        while size <= largest and (chunk := file.read(_CHUNK)):
            sha256.update(chunk)
            size += len(chunk)
    return sha256.hexdigest()


def _open(folder: Path, name: str) -> IO[bytes]:
    try:
        # Non-blocking, so that a named pipe without a writer does not hang.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(folder / name, flags)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise _Wrong(name, "is no plain file")
    except FileNotFoundError:
        raise _Wrong(name, "is missing") from None
    except OSError as error:
        raise _Wrong(name, f"cannot be read as a plain file: {error.strerror}") from None
    return os.fdopen(descriptor, "rb")
