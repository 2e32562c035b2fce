"""KV-cache events of the engines -> what each endpoint caches, in the shared `State`.

In: the endpoints to follow, and what their ZMQ publishers send. Out: deltas, clears and residency modes to `State`.
Walk: `source` (sockets) -> `sequence` (order, gaps, restarts) -> `decode` -> `tracker` (engine hashes -> block keys)
-> `ingest` (flushes into `State`). Called by the picker through `process`, which runs it in its own process.
"""
