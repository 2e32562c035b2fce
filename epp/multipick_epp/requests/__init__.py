"""HTTP request -> `Prompt`: reads the APIs that vLLM and SGLang serve, judges nothing else.

In: path, headers, body bytes, all hostile. Out: a `Prompt`, or `Unread` with the reason, which is routed by load.
Called by the picker; `errors` shapes refusals for the API that the client called.
"""
