"""A certificate authority of the tests' own, and a server's certificate for loopback."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


@attrs.frozen(kw_only=True)
class Certificates:
    """Files of PEM.

    Attributes:
        ca: The authority's certificate, which clients are told to trust.
        chain: The server's certificate.
        key: Its private key.
    """

    ca: Path
    chain: Path
    key: Path

    @classmethod
    def make(cls, folder: Path) -> Certificates:
        """Write them into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        found = cls(ca=folder / "ca.pem", chain=folder / "server.pem", key=folder / "server.key")
        authority, own = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        issuer = _name("tests' own authority")
        is_ca = x509.BasicConstraints(ca=True, path_length=0)
        root = _unsigned(issuer, issuer, authority).add_extension(is_ca, critical=True)
        hosts = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        leaf = _unsigned(_name("server"), issuer, own).add_extension(hosts, critical=False)
        for path, unsigned in ((found.ca, root), (found.chain, leaf)):
            signed = unsigned.sign(authority, hashes.SHA256())
            path.write_bytes(signed.public_bytes(Encoding.PEM))
        plain = own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        found.key.write_bytes(plain)
        found.key.chmod(0o600)
        return found


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _unsigned(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    return x509.CertificateBuilder(
        issuer_name=issuer,
        subject_name=subject,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=now - day,
        not_valid_after=now + day,
    )
