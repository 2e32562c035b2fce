"""The endpoint picker: Envoy asks it by ext_proc which pod should serve a request.

One request walks the folders in this order: `extproc` (stream) -> `requests` (parse) -> `tokens` (prompt -> ids)
-> `blocks` (ids -> keys) -> `state` (hits, loads) -> `policy` (choose) -> `state` (reserve) -> `extproc` (reply).
Beside it: `events` (KV events -> state), `pods` (which endpoints exist), `telemetry`, `recording`.
"""
