"""Where a URL points to; and nothing tells its password."""

import re
from pathlib import Path

import pytest
from multipick_epp.state.redis.address import Server, parse_url


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("redis://localhost", Server((("localhost", 6379),))),
        ("redis://10.0.0.1:7000/3", Server((("10.0.0.1", 7000),), database=3)),
        ("redis://[fd00::1]:7000", Server((("fd00::1", 7000),))),
        ("redis://:p%40ss@h", Server((("h", 6379),), password="p@ss")),
        ("redis://user:pw@h", Server((("h", 6379),), username="user", password="pw")),
        ("unix:///run/valkey.sock?db=2", Server((), unix="/run/valkey.sock", database=2)),
        (
            "redis+sentinel://:pw@a,b:26380/mymaster/1?sentinel_password=s",
            Server(
                (("a", 26379), ("b", 26380)), "sentinel", "mymaster", database=1, password="pw", sentinel_password="s"
            ),
        ),
        ("redis+cluster://a:7000,b:7001", Server((("a", 7000), ("b", 7001)), "cluster")),
    ],
)
def test_urls_are_read(url: str, server: Server) -> None:
    assert parse_url(url) == server


def test_rediss_is_tls_with_the_systems_authorities() -> None:
    tls = parse_url("rediss://h").tls
    assert tls is not None
    assert tls.context.check_hostname


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("ca={missing}", "ca: no certificates to be read from {missing}: No such file or directory"),
        ("ca={junk}", "ca: no certificates"),
        ("ca={folder}", "ca: no certificates"),
        ("cert={missing}", "cert: no certificate with its key"),
        ("cert={junk}&key={junk}", "cert: no certificate with its key"),
        ("key={junk}", "key: goes with cert"),
        ("authority={junk}", "the options of a Redis URL are ca, cert, db, key, sentinel_password"),
    ],
)
def test_files_that_cannot_be_used_are_told_in_words(tmp_path: Path, options: str, words: str) -> None:
    names = {"missing": tmp_path / "none.pem", "junk": tmp_path / "junk.pem", "folder": tmp_path}
    names["junk"].write_text("no certificate")
    with pytest.raises(ValueError, match="^" + re.escape(words.format(**names))) as raised:
        parse_url(f"rediss://user:secret@h?{options.format(**names)}")
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://h",
        "redis://",
        "redis+ring://h",
        "redis+sentinel://h:26379",
        "redis://user:secret/word@h",
        "redis://user:secret#word@h:1",
        "redis://user:secret?word@h",
        "redis://h:port",
        "redis://h/secret",
        "",
    ],
)
def test_a_bad_url_is_refused_without_telling_it(url: str) -> None:
    with pytest.raises(ValueError, match=r"Redis URL|Sentinel URL") as raised:
        parse_url(url)
    assert "secret" not in str(raised.value)
    assert raised.value.__suppress_context__ or raised.value.__context__ is None


def test_a_server_shows_no_password() -> None:
    server = parse_url("redis+sentinel://user:secret1@h/m?sentinel_password=secret2")
    assert "secret" not in repr(server)
