"""Puts the rooms together: configuration in, a running picker out; supervises what lives long.

Knows every room; no room knows it. `cli` is `multipick epp`, `app` one picker, `feeds` its ingest, `stores` its state.
"""
