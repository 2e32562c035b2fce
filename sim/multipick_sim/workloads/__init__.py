"""Workloads for replay: which request comes when, how long it is, and which prefix it shares with which others.

In: a trace (a file, a folder, gzipped or not) or the name of a generator. Out: one `Workload`, without any text.
"""
