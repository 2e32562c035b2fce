"""Recordings of a live engine: requests, answers and KV events, to check the index with and to attach to bug reports.

In: a folder (`make` writes one, `folder` reads it). Out: for each request, the hit that the index predicts beside what
the engine reported (`check`). Uses the picker's own rooms: nothing is computed here that isn't computed in production.
"""
