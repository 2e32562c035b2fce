"""The configuration -> the certificate that the ext_proc port shows."""

from pathlib import Path

from multipick_epp.config import ConfigError, ListenTls
from multipick_epp.extproc.tls import Certificate, Files, TlsError, read, self_signed


def certificate_files(tls: ListenTls) -> Files | None:
    """Where the certificate lies; None where there is none, or it is made at start.

    Raises ConfigError for fields that don't belong together.
    """
    if tls.mode is True:
        raise ConfigError("listen.tls: mode is off, self-signed or files")
    if tls.plaintext and (tls.mode in ("off", False) or tls.client_ca):
        raise ConfigError("listen.tls: plaintext is for mode self-signed, or files without client_ca")
    if tls.mode != "files":
        if tls.cert or tls.key or tls.client_ca:
            raise ConfigError(f"listen.tls: cert, key and client_ca are for mode files, not {tls.mode}")
        return None
    if not (tls.cert and tls.key):
        raise ConfigError("listen.tls: mode files takes cert and key")
    return Files(Path(tls.cert), Path(tls.key), Path(tls.client_ca) if tls.client_ca else None)


def certificate(tls: ListenTls) -> Certificate | None:
    """None: plaintext. Raises ConfigError for files that can't be used."""
    files = certificate_files(tls)
    if tls.mode in ("off", False):
        return None
    try:
        return Certificate(self_signed() if files is None else read(files), tls.plaintext)
    except TlsError as error:
        raise ConfigError(f"listen.tls: {error}") from error
