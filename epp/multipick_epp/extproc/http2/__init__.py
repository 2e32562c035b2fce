"""HTTP/2 and gRPC for the services of this program: a small server whose cost is a few microseconds a message.

Everything but `protocol` and `listener` is bytes in, bytes out: `frames` names what is on the wire, `headers` reads
header blocks, `grpc` cuts messages out of DATA frames, `stream` is one call, `connection` all calls of one peer, and
`bounds` what a peer may cost. `protocol` puts asyncio and TLS around a connection, `listener` holds the port and all
connections, `calls` are the methods that can be called, `server` is what the application starts.

Sources: RFC 9113 (HTTP/2), RFC 7541 (HPACK), gRPC's doc/PROTOCOL-HTTP2.md. Not implemented, because no client of a
gRPC server asks for it: server push, priorities (read and ignored), upgrade from HTTP/1.1, compressed messages.
"""
