"""The operator: one `InferencePool` object (multipick.dev) becomes engine pods, their picker and their gateway wiring.

In: pool objects and what the cluster says of their children. Out: children by server-side apply, the pool's status,
Events. The way of one pool through the folders: `watch` (something changed) -> `queue` -> `reconcile` -> `api` (typed
spec) -> `children` (pure: what should exist) -> `kube` (make it so) -> `status` (pure: what to say of it).
"""
