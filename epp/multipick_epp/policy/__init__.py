"""Policies: pure functions over a `Snapshot` that rank the endpoints for one request.

In: what every candidate caches and carries. Out: endpoints with scores, best first. Called by the live picker and by
replay with the very same code. `lmetric` is the rule of this project; the others are here to be compared with.
"""
