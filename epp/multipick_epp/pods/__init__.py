"""Which endpoints exist, which of them can serve, and what their engines say of their own load.

In: the configured list or file, each engine's `/metrics`. Out: ready endpoints, gauges, changes to listeners. Called by
the picker at each decision (without leaving the process) and by the ingest, which subscribes to what exists.
"""
