"""One picker of several processes: `workers: N` of them decide, one more holds the port, the ingest and the pages.

The one that was started (the *front*) accepts connections and hands each to a worker, runs the one ingest, answers for
all of them on the admin port, and starts again what dies. A worker is a picker like any other, with its own lease,
mirror and charges in the shared state; it serves the connections that it is given. `spread` says which worker gets a
connection, `door` hands it over, `worker` is the front's side of one, `messages` what they tell each other, `shared`
the worker's side; `metrics`, `answers` and `admin` make one picker's pages of all of theirs. `app.front` and
`app.worker` put them together.
"""
