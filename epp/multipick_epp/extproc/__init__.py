"""Envoy's ext_proc: one stream of messages a request, the gateway's side of the Endpoint Picker Protocol 1.0.

In come the headers and body of a request and what becomes of its response; out go the pick, errors in its place, and
echoes of what the gateway wants echoed. `messages` and `replies` are the bytes, `stream` the protocol without I/O,
`driver` runs one stream against the picker, `server` carries it over gRPC; `health` says whether to call here at all.
`app` starts it; the picker behind it is seen through `pick.py` only.
"""
