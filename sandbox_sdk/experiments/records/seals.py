"""Which runs of a state folder are sealed, with which keys, and what signs what is exported."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import attrs

from sandbox_sdk.crypto_utils.digests import keyed_digest
from sandbox_sdk.crypto_utils.key_files import find_key
from sandbox_sdk.crypto_utils.keyring import KeyRing
from sandbox_sdk.crypto_utils.manifests import sign_manifest
from sandbox_sdk.errors import KeyNotFound
from sandbox_sdk.experiments.records.payloads import PLAIN, Payloads, Sealed
from sandbox_sdk.policies import STRONG
from sandbox_sdk.vault import Vault

_PLANS = "plans"
"""The name of the key by which the plans of sealed runs are found."""


@attrs.frozen
class Seals:
    """Seals the runs of one state folder. Blocks on the disk.

    A run is sealed if there is a master key when it begins, and always where a sandbox of it is of
    level ``high``; it goes on as it began.

    Attributes:
        vault: The keys; ``None`` seals and opens nothing.
    """

    vault: Vault | None = None

    def for_new(self, run: str, levels: Iterable[str]) -> Payloads:
        """Return what keeps a run that begins.

        Args:
            run: The run's id.
            levels: The security levels of its sandboxes.

        Raises:
            ConfigError: The master key cannot be one.
            StateError: The folder of keys cannot be written.
        """
        ring = self._ring(create=not STRONG.isdisjoint(levels))
        return PLAIN if ring is None else Sealed(ring.data_key(run), run)

    def of(self, run: str, key_id: str | None) -> Payloads:
        """Return what keeps a run that was begun.

        Args:
            run: The run's id.
            key_id: The id of the key that its plan names; ``None`` if it is not sealed.

        Raises:
            KeyNotFound: Its key is not here, or under another master; the run is as it was.
            IntegrityError: Its key was changed.
        """
        if key_id is None:
            return PLAIN
        try:
            ring = self._ring()
            key = None if ring is None else ring.find_data_key(run)
        except KeyNotFound as error:
            raise KeyNotFound(
                f"the run {run} is sealed with the key {key_id}: {error.message}", key_id=key_id
            ) from error
        if key is None:
            why = "its key was erased" if ring else "no master key is set here that opens its key"
            raise KeyNotFound(
                f"the run {run} is sealed with the key {key_id}, and {why}; set "
                "security.encryption_key or security.encryption_key_file, or import the key with "
                '"sandbox-sdk keys import"',
                key_id=key_id,
            )
        return Sealed(key, run)

    def marks(self, digest: str, levels: Iterable[str], *, every: bool) -> tuple[str, ...]:
        """Return what a plan of this digest may be found by; the last is for a run that begins.

        Args:
            digest: The plan's digest.
            levels: The security levels of its sandboxes.
            every: Whether it matters that a run of it is found.

        Raises:
            KeyNotFound: There are sealed runs and no key, so that nobody can tell whether one is of
                this plan.
        """
        ring = self._ring(create=not STRONG.isdisjoint(levels))
        if ring is not None:
            key = ring.data_key(_PLANS).reveal()
            sealed = keyed_digest(key, digest.encode(), purpose=b"sbx.plan").hex()
            return digest, sealed
        if every and self.vault is not None:
            wrapped = find_key(self.vault.folder, "data", _PLANS)
            if wrapped is not None:
                raise KeyNotFound(
                    "runs of this state folder are sealed, and without their master key (its id is "
                    f"{wrapped.master_id}) nobody can tell whether this batch was begun: set "
                    'security.encryption_key or security.encryption_key_file, or give run="new"',
                    key_id=wrapped.master_id,
                )
        return (digest,)

    def signer(self, levels: Iterable[str] = ()) -> Callable[[bytes], bytes] | None:
        """Return what signs the manifest of an export: always at ``high``, else if there is a key.

        Args:
            levels: The security levels of the sandboxes.

        Raises:
            KeyNotFound: The signing key is wrapped under another master key.
        """
        ring = self._ring(create=not STRONG.isdisjoint(levels))
        return None if ring is None else partial(sign_manifest, ring.signing_key())

    def _ring(self, *, create: bool = False) -> KeyRing | None:
        return None if self.vault is None else self.vault.ring(create=create)
