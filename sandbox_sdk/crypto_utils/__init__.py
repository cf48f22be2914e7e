"""Encryption, keys and integrity, by libsodium: for what the SDK keeps, and for your own data.

Seal data that must stay secret::

    from sandbox_sdk.crypto_utils import DataKey, Label, seal, unseal

    key = DataKey.generate()
    sealed = seal(key, b"secret", Label(type="note", id="1"))
    assert unseal(key, sealed, Label(type="note", id="1")) == b"secret"

- **End to end**: ``seal`` and ``unseal`` for records, ``seal_stream`` and ``seal_file`` for what is
  large, ``seal_to`` and ``unseal_with`` where only the receiver's public key is known.
- **Keys**: ``MasterKey``, ``DataKey``, ``SigningKey`` and ``PrivateKey`` never print nor pickle;
  ``KeyRing`` keeps them wrapped under a master, and rotates it.
- **Integrity**: ``sign`` and ``SSHSignature`` as ``ssh-keygen -Y`` does, ``sign_token`` and
  ``SignedToken`` for PASETO v4.public, ``verify_folder`` for exports, ``keyed_digest`` and
  ``Commitment`` for digests that give nothing away.

Whatever is not what was sealed or signed is an ``IntegrityError``, and nothing of it is returned.
libsodium is loaded at the first use.
"""

from sandbox_sdk.crypto_utils.boxes import PrivateKey, PublicKey, seal_to, unseal_with
from sandbox_sdk.crypto_utils.digests import Commitment, keyed_digest
from sandbox_sdk.crypto_utils.key_files import export_keys, list_keys
from sandbox_sdk.crypto_utils.keyring import KeyRing, KeySource
from sandbox_sdk.crypto_utils.keys import DataKey, MasterKey, SigningKey, VerifyKey
from sandbox_sdk.crypto_utils.manifests import Verification, sign_manifest, verify_folder
from sandbox_sdk.crypto_utils.masters import Unlock, check_encryption_key
from sandbox_sdk.crypto_utils.paseto import SignedToken, sign_token
from sandbox_sdk.crypto_utils.passphrases import Passphrase
from sandbox_sdk.crypto_utils.records import Label, seal, unseal
from sandbox_sdk.crypto_utils.sealed_files import seal_file, unseal_file
from sandbox_sdk.crypto_utils.sshsig import SSHSignature, sign
from sandbox_sdk.crypto_utils.streams import (
    Sealer,
    Unsealer,
    seal_pieces,
    seal_stream,
    unseal_stream,
)

__all__ = [
    "Commitment",
    "DataKey",
    "KeyRing",
    "KeySource",
    "Label",
    "MasterKey",
    "Passphrase",
    "PrivateKey",
    "PublicKey",
    "SSHSignature",
    "Sealer",
    "SignedToken",
    "SigningKey",
    "Unlock",
    "Unsealer",
    "Verification",
    "VerifyKey",
    "check_encryption_key",
    "export_keys",
    "keyed_digest",
    "list_keys",
    "seal",
    "seal_file",
    "seal_pieces",
    "seal_stream",
    "seal_to",
    "sign",
    "sign_manifest",
    "sign_token",
    "unseal",
    "unseal_file",
    "unseal_stream",
    "unseal_with",
    "verify_folder",
]
