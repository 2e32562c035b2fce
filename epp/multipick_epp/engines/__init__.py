"""The one door to the engines over HTTP.

In: an endpoint and a question. Out: a checked value, or `Unanswered` with the reason; nothing is raised. Called by
`pods/`, `events/`, `tokens/` and `checks/`.
"""
