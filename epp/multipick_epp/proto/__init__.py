"""The messages of ext_proc and of gRPC's health service, generated from `proto/` by `make proto`; nothing by hand.

`extproc/` alone reads and writes them, and hands plain values on.
"""
