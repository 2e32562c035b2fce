"""Envoy's ext_proc: one stream of messages a request, the gateway's side of the Endpoint Picker Protocol 1.0.

In come the headers and body of a request and what becomes of its response; out go the pick, errors in its place, and
echoes of what the gateway wants echoed. `messages`, `chunks` and `replies` are the bytes, `stream` the protocol without
I/O, `driver` runs one stream against the picker; `health` says whether to call here at all. Two servers can carry it
(`transports`): `http2`, our own, and `server`, which is grpc.aio's and the reference; `tls` is the certificate of both.
`app` starts it; the picker behind it is seen through `pick.py` only.
"""
