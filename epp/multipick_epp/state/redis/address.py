"""A store's URL -> where the store is, and how to speak to it."""

import ssl
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

_PORTS = {"": 6379, "sentinel": 26379, "cluster": 6379}
_OPTIONS = {"ca", "cert", "key", "db", "sentinel_password"}


@dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM form; None: the system's authorities, no client certificate. `context` is made of them."""

    ca: str | None
    cert: str | None
    key: str | None
    context: ssl.SSLContext = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Server:
    """A parsed URL. `repr` shows no password."""

    hosts: tuple[tuple[str, int], ...]
    kind: str = ""  # "sentinel", "cluster" or "": one server
    service: str = ""  # the master's name, Sentinel only
    unix: str | None = None
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    sentinel_password: str | None = field(default=None, repr=False)
    tls: Tls | None = None


def parse_url(url: str) -> Server:
    """`redis://[user:password@]host[:port][/database]`, `rediss://` for TLS, `unix:///path`.

    With `+sentinel` after the scheme: `redis+sentinel://host:26379,host/service[/database]`; with `+cluster`:
    `redis+cluster://host,host`. Options: `?ca=FILE` trusts the authorities in that file alone, `cert` and `key` are
    the client's; `sentinel_password`. Raises ValueError, which never shows the URL's password, also for a file that
    can't be read.
    """
    scheme, _, rest = url.partition("://")
    protocol, _, kind = scheme.partition("+")
    if protocol not in ("redis", "rediss", "unix") or kind not in _PORTS or not rest:
        raise ValueError("a Redis URL begins with redis://, rediss://, unix:// or redis+sentinel://, redis+cluster://")
    parts = urlsplit(f"x://{rest}")
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    if not options.keys() <= _OPTIONS:
        raise ValueError(f"the options of a Redis URL are {', '.join(sorted(_OPTIONS))}")
    credentials, _, hosts = parts.netloc.rpartition("@")
    username, _, password = credentials.partition(":")
    path = [step for step in parts.path.split("/") if step]
    service = path.pop(0) if kind == "sentinel" and path else ""
    if kind == "sentinel" and not service:
        raise ValueError("a Sentinel URL names the service: redis+sentinel://host:26379/mymaster")
    unix = unquote(parts.path) if protocol == "unix" else None
    return Server(
        () if unix else tuple(_host(host, _PORTS[kind]) for host in hosts.split(",")),
        kind,
        service,
        unix,
        _database(options.get("db", "0") if unix else (path or ["0"])[0]),
        unquote(username) or None,
        unquote(password) or None,
        options.get("sentinel_password"),
        _tls(options) if protocol == "rediss" else None,
    )


def _host(text: str, default_port: int) -> tuple[str, int]:
    try:
        parts = urlsplit(f"x://{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None  # its message may quote a password that was not percent-encoded
    if not host:
        raise ValueError("a Redis URL has host[:port]; special characters in a password are percent-encoded") from None
    return host, port or default_port


def _database(text: str) -> int:
    if not text.isdecimal():
        raise ValueError("the path of a Redis URL is the number of a database")
    return int(text)


def _tls(options: dict[str, str]) -> Tls:
    ca, cert, key = (options.get(name) for name in ("ca", "cert", "key"))
    try:
        context = ssl.create_default_context(cafile=ca)
    except OSError as error:  # SSLError is one
        raise ValueError(f"ca: no certificates to be read from {ca}: {_words(error)}") from None
    if key is not None and cert is None:
        raise ValueError("key: goes with cert")
    if cert is not None:
        try:
            context.load_cert_chain(cert, key, password="")  # an encrypted key would be asked for at a terminal
        except OSError as error:
            raise ValueError(f"cert: no certificate with its key to be read from {cert}: {_words(error)}") from None
    return Tls(ca, cert, key, context)


def _words(error: OSError) -> str:
    return (error.reason if isinstance(error, ssl.SSLError) else error.strerror) or "unreadable"
