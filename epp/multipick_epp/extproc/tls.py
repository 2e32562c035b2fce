"""The certificate that the ext_proc port shows: one made at start, or files that are read again when they change.

Gateways take a self-signed one, as they take the reference picker's: they want the bytes unreadable on the way, and
know the picker by its address. Whoever wants more names files, and perhaps the authority of its clients.
"""

import asyncio
import logging
import os
import ssl
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 10.0  # for files that changed
_PEM_BYTES: Final = 1 << 20
_VALID: Final = timedelta(days=3650)
_SKEW: Final = timedelta(days=1)  # of the clocks of whoever looks at our dates
# RFC 9113 section 9.2.2 forbids the others with TLS 1.2.
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"


class TlsError(Exception):
    """The certificate can't be used; the message says which file and why, and nothing of the key."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who we are, as PEM, and whom we let in."""

    cert: bytes
    key: bytes = field(repr=False)
    client_ca: bytes | None = None  # None: anybody


@dataclass(frozen=True, slots=True)
class Files:
    """Where an identity lies."""

    cert: Path
    key: Path
    client_ca: Path | None = None


class Certificate:
    """The identity of this moment. Connections keep the one they began with."""

    def __init__(self, identity: Identity, plaintext: bool = False) -> None:
        """`plaintext`: who doesn't speak TLS is served, too. Raises TlsError."""
        self.identity = identity
        self.plaintext = plaintext
        self._context = context(identity)

    def context(self) -> ssl.SSLContext:
        """For a new connection."""
        return self._context

    def replace(self, identity: Identity) -> None:
        """For connections from now on. Raises TlsError, and keeps the old one then."""
        self._context = context(identity)
        self.identity = identity

    async def follow(self, files: Files, every_s: float = LOOK_EVERY_S) -> None:
        """Look for files that changed, for ever. What can't be used is logged once, and looked at again."""
        said = ""
        while True:
            await asyncio.sleep(every_s)
            try:
                found = await asyncio.to_thread(read, files)
                if found != self.identity:
                    self.replace(found)
                    log.info("the certificate changed", extra={"cert": str(files.cert)})
                said = ""
            except TlsError as error:
                if str(error) != said:
                    said = str(error)
                    log.error("the new certificate can't be used: the old one stays", extra={"why": said})


def read(files: Files) -> Identity:
    """What the files hold. Raises TlsError."""
    return Identity(_read(files.cert), _read(files.key), _read(files.client_ca) if files.client_ca else None)


def self_signed() -> Identity:
    """An identity that is new each time. Raises TlsError where the package it takes is missing."""
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as error:  # pragma: no cover - it comes with the picker
        raise TlsError("a self-signed certificate takes the package `cryptography`") from error
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "multipick")])
    now = datetime.now(UTC)
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + _VALID)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("multipick"), x509.DNSName("localhost")]), False)
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    return Identity(
        cert.public_bytes(pem), key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain), client_ca=None
    )


def context(identity: Identity) -> ssl.SSLContext:
    """For servers of HTTP/2. Raises TlsError."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    made.set_ciphers(_CIPHERS)
    made.set_alpn_protocols(["h2"])
    with _as_file(identity.cert) as cert, _as_file(identity.key) as key:
        try:
            made.load_cert_chain(cert, key, password="")  # an encrypted key is refused, not asked about
        except (ssl.SSLError, ValueError) as error:
            raise TlsError(f"certificate and key are no pair, or no PEM: {_reason(error)}") from error
    if identity.client_ca is not None:
        made.verify_mode = ssl.CERT_REQUIRED
        try:
            # Between certificates there are remarks, in any language; what OpenSSL reads is ASCII.
            made.load_verify_locations(cadata=identity.client_ca.decode("ascii", "ignore"))
        except (ssl.SSLError, ValueError) as error:
            raise TlsError(f"the clients' authority is no PEM: {_reason(error)}") from error
    return made


@contextmanager
def _as_file(data: bytes) -> Iterator[str]:
    """A name to open it by: keys are read from files only, as Python has OpenSSL. It is in memory where that can be:
    no key is to lie on a disk, and a container may have none that can be written to.
    """
    if sys.platform == "linux":
        with os.fdopen(os.memfd_create("pem"), "wb") as file:
            file.write(data)
            file.flush()
            yield f"/proc/self/fd/{file.fileno()}"
    else:
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            yield file.name


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_PEM_BYTES + 1)
    except OSError as error:
        raise TlsError(f"{path}: {error.strerror}") from error
    if len(data) > _PEM_BYTES:
        raise TlsError(f"{path}: larger than {_PEM_BYTES} bytes")
    return data


def _reason(error: Exception) -> str:
    return getattr(error, "reason", None) or str(error)
