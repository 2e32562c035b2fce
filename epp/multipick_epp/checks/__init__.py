"""What is wrong with the pool's engines, as far as asking and watching them tells: for people, who alone can mend it.

In: each ready engine's `/v1/models` and `/tokenize`, its metrics, its KV events. Out: `Mismatch`es with words that a
user understands, for `GET /status` (which the operator turns into conditions), metrics and the log; and, to `encoders`,
whose token ids are to be trusted. Runs beside the requests, never among them; started by the app.
"""
