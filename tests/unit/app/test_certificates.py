"""What `listen.tls` may say, and what comes of it."""

from pathlib import Path

import msgspec
import pytest
from multipick_epp.app.certificates import certificate, certificate_files
from multipick_epp.config import ConfigError, Listen, ListenTls
from multipick_epp.extproc.tls import self_signed


def said(text: str) -> ListenTls:
    return msgspec.yaml.decode(text, type=ListenTls)


@pytest.mark.parametrize("text", ["{}", "{mode: off}", "{mode: 'off'}"])
def test_off_is_plaintext_also_where_yaml_takes_it_for_a_truth_value(text: str) -> None:
    assert certificate(said(text)) is None
    assert certificate_files(said(text)) is None


def test_self_signed_has_no_files() -> None:
    made = certificate(said("{mode: self-signed}"))
    assert made is not None
    assert made.identity.cert.startswith(b"-----BEGIN CERTIFICATE-----")
    assert certificate_files(said("{mode: self-signed}")) is None


@pytest.mark.parametrize("plaintext", [False, True])
def test_plaintext_beside_tls_is_taken_on_request_only(plaintext: bool) -> None:
    made = certificate(ListenTls("self-signed", plaintext=plaintext))
    assert made is not None
    assert made.plaintext is plaintext


def test_grpc_aio_takes_one_of_both_alone() -> None:
    with pytest.raises(msgspec.ValidationError, match="transport h2"):
        msgspec.yaml.decode("{transport: grpc, tls: {mode: self-signed, plaintext: true}}", type=Listen)


def test_files_are_read(tmp_path: Path) -> None:
    identity = self_signed()
    for name, data in (("cert", identity.cert), ("key", identity.key), ("ca", identity.cert)):
        (tmp_path / name).write_bytes(data)
    tls = ListenTls("files", f"{tmp_path}/cert", f"{tmp_path}/key", f"{tmp_path}/ca")
    made = certificate(tls)
    assert made is not None
    assert (made.identity.cert, made.identity.client_ca) == (identity.cert, identity.cert)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("{mode: on}", "self-signed or files"),
        ("{mode: files}", "cert and key"),
        ("{mode: files, cert: a}", "cert and key"),
        ("{mode: files, cert: /no/cert, key: /no/key}", "/no/cert"),
        ("{mode: off, cert: a, key: b}", "mode files"),
        ("{mode: self-signed, client_ca: a}", "mode files"),
        ("{mode: off, plaintext: true}", "self-signed, or files without client_ca"),
        ("{mode: files, cert: a, key: b, client_ca: c, plaintext: true}", "self-signed, or files without client_ca"),
    ],
)
def test_a_mistake_is_named(text: str, where: str) -> None:
    with pytest.raises(ConfigError, match=where):
        certificate(said(text))
