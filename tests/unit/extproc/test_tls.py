"""The certificate of the ext_proc port: made, read, read again, refused."""

import asyncio
import ssl
import sys
import tempfile
from pathlib import Path

import pytest
from multipick_epp.extproc.tls import Certificate, Files, Identity, TlsError, context, read, self_signed


@pytest.fixture(scope="module")
def first() -> Identity:
    return self_signed()


@pytest.fixture(scope="module")
def second() -> Identity:
    return self_signed()


@pytest.fixture
def files(tmp_path: Path, first: Identity) -> Files:
    files = Files(tmp_path / "tls.crt", tmp_path / "tls.key")
    write(files, first)
    return files


def write(files: Files, identity: Identity) -> None:
    files.cert.write_bytes(identity.cert)
    files.key.write_bytes(identity.key)


def shown(certificate: Certificate, trusted: Identity) -> str | None:
    """Shakes hands in memory, and returns the protocol agreed on. Raises ssl.SSLError for another certificate."""
    client = ssl.create_default_context(cadata=trusted.cert.decode())
    client.set_alpn_protocols(["h2", "http/1.1"])
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = certificate.context().wrap_bio(to_server, to_client, server_side=True)
    theirs = client.wrap_bio(to_client, to_server, server_hostname="localhost")
    for _ in range(4):
        for side in (theirs, ours):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return theirs.selected_alpn_protocol()


def test_a_self_signed_certificate_is_new_each_time_and_speaks_http2(first: Identity, second: Identity) -> None:
    assert first.cert != second.cert
    assert shown(Certificate(first), first) == "h2"
    with pytest.raises(ssl.SSLError):
        shown(Certificate(first), second)


def test_old_protocols_are_not_spoken(first: Identity) -> None:
    made = context(first)
    assert made.minimum_version is ssl.TLSVersion.TLSv1_2
    names = [each["name"] for each in made.get_ciphers() if each["protocol"] == "TLSv1.2"]
    assert names
    assert all(name.startswith("ECDHE-") for name in names)


def test_a_key_shows_in_no_text(first: Identity) -> None:
    assert "PRIVATE" not in repr(first)


async def test_changed_files_count_for_new_connections(
    files: Files, first: Identity, second: Identity, caplog: pytest.LogCaptureFixture
) -> None:
    certificate = Certificate(read(files))
    old = certificate.context()
    following = asyncio.create_task(certificate.follow(files, 0.001))
    files.cert.write_bytes(second.cert)  # the key comes later, as files come one by one
    while "stays" not in caplog.text:
        await asyncio.sleep(0.001)
    assert certificate.context() is old
    assert shown(certificate, first) == "h2"
    files.key.write_bytes(second.key)
    while certificate.context() is old:
        await asyncio.sleep(0.001)
    assert shown(certificate, second) == "h2"
    assert "PRIVATE" not in caplog.text
    following.cancel()


async def test_a_broken_file_keeps_the_old_certificate_and_is_logged_once(
    files: Files, first: Identity, caplog: pytest.LogCaptureFixture
) -> None:
    certificate = Certificate(read(files))
    following = asyncio.create_task(certificate.follow(files, 0.001))

    async def said(times: int) -> None:
        while len(complaints()) < times:
            await asyncio.sleep(0.001)

    def complaints() -> list[str]:
        return [str(vars(record)["why"]) for record in caplog.records if "stays" in record.getMessage()]

    files.cert.write_bytes(b"\xff\x00 no PEM")
    await said(1)
    files.cert.write_bytes(b"x" * (2 << 20))
    await said(2)
    files.cert.unlink()
    await said(3)
    write(files, first)
    await asyncio.sleep(0.02)
    assert len(set(complaints())) == 3
    assert not following.done()
    assert shown(certificate, first) == "h2"
    following.cancel()


@pytest.mark.parametrize("part", ["cert", "key", "pair", "client_ca", "encrypted"])
def test_what_cannot_be_used_is_an_error_that_names_no_secret(part: str, first: Identity, second: Identity) -> None:
    identity = {
        "cert": Identity(b"-----BEGIN CERTIFICATE-----\nxx\n-----END CERTIFICATE-----\n", first.key),
        "key": Identity(first.cert, b"nonsense"),
        "pair": Identity(first.cert, second.key),
        "client_ca": Identity(first.cert, first.key, b"nonsense"),
        "encrypted": Identity(first.cert, encrypted(first.key)),
    }[part]
    with pytest.raises(TlsError) as raised:
        Certificate(identity)
    assert "BEGIN" not in str(raised.value)


def encrypted(key: bytes) -> bytes:
    from cryptography.hazmat.primitives import serialization

    loaded = serialization.load_pem_private_key(key, None)
    form = serialization.PrivateFormat.PKCS8
    return loaded.private_bytes(serialization.Encoding.PEM, form, serialization.BestAvailableEncryption(b"x"))


def test_a_missing_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(TlsError, match=r"tls\.crt"):
        read(Files(tmp_path / "tls.crt", tmp_path / "tls.key"))


def test_with_an_authority_of_clients_only_they_are_let_in(first: Identity, second: Identity) -> None:
    made = context(Identity(first.cert, first.key, second.cert))
    assert made.verify_mode is ssl.CERT_REQUIRED


def test_remarks_between_certificates_of_clients_may_be_in_any_language(first: Identity, second: Identity) -> None:
    bundle = "# Főtanúsítvány\n".encode() + second.cert + b"\xe9 latin-1 \n" + first.cert
    assert context(Identity(first.cert, first.key, bundle)).cert_store_stats()["x509"] == 2


@pytest.mark.skipif(sys.platform != "linux", reason="files in memory are Linux's")
def test_no_disk_is_needed(first: Identity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    assert shown(Certificate(first), first) == "h2"
