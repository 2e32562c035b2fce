"""The cluster as the operator reads and writes it, through the official `kubernetes` package and kopf.

In: credentials, the lease, which namespaces and pools. Out: `View` (what exists, from the watches' own cache), `Writes`
(changes, under the lease), and a call for each pool that something happened to. The reconciler knows nothing else of
the API server. From the bottom: `kinds`, `client`, `login`; `informer` and `pools` (one watch each); `watches` (keeps
them all going); `view`; `lease` and `writes`.
"""
