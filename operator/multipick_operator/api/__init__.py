"""The API `inferencepools.multipick.dev/v1alpha1` as types, and the CRD that is generated from them.

In: an object as the API server holds it. Out: `PoolSpec`, or a `SpecError` that names the field. The reconciler
decodes with it; `manifests/render.py` writes the CRD from it.
"""
