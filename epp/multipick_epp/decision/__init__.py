"""One request -> one endpoint: the walk of a decision, and the reservation's life after it.

In: a `PickRequest` of `extproc/`. Out: a `Pick` with its reservation, or `NoPick`. `picker` walks: `prompts` (body ->
block keys, by `encoders`), `choice` (hits and loads -> candidates), reserve in `state/`. `reservations` follow the
request to its end, `progress` its prefill.
"""
