"""Traffic: what clients ask, how it is sent, and what came of it.

In: a seed (`chats`) or a trace file (`mooncake`); both yield `plan.Session`s, without text. `client` sends them to one
URL at their times and yields a `records.Record` a request; `measures` and `causes` turn records into figures. No I/O
but in `client` and in reading the trace file. Called by the demo; `replay` reads the same plans.
"""
