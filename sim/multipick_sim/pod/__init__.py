"""A vLLM pod without a GPU: the engine model in real time behind vLLM's HTTP API, metrics and KV events.

In: OpenAI requests over HTTP, settings from `multipick sim serve`. Out: answers at the pace of the modelled GPU, KV
events over ZMQ, Prometheus metrics. An HTTP request goes `generate` -> `orders` (tokens, answer) -> `rank` (engine)
-> `shapes` (bytes); the demo, clusters without GPUs and the integration tests call it over the network only.
"""
