"""TLS as bytes in, bytes out: OpenSSL between two memory buffers, no socket."""

import ssl

_READ = 65_536


class TlsPipe:
    """The server's side of one TLS connection."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._shaken = False

    def receive(self, data: bytes) -> tuple[bytes, bytes]:
        """What the peer says, and what is to be written. Raises ssl.SSLError, also for the peer's goodbye."""
        self._incoming.write(data)
        pieces = []
        try:
            if not self._shaken:
                self._tls.do_handshake()
                self._shaken = True
            while piece := self._tls.read(_READ):
                pieces.append(piece)
        except ssl.SSLWantReadError:
            pass
        return b"".join(pieces), self._outgoing.read()

    def send(self, data: bytes) -> bytes:
        """The same, encrypted."""
        self._tls.write(data)
        return self._outgoing.read()

    def alert(self) -> bytes:
        """What OpenSSL wants to tell the peer after an error."""
        return self._outgoing.read()
