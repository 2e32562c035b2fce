"""The picker's own HTTP port: what it does, for Prometheus, people, the operator and `multipick top`.

In: what the other rooms keep anyway, read when somebody asks. Out: `/metrics`, `/status`, `/endpoints`, `/index`.
Called by `app`; asks nothing of anybody outside this process.
"""
