"""Real servers on this machine, for the demo, the tests and the benchmarks: Envoy and Valkey from their wheels.

In come a few ports and paths, out goes a running process that ends with the `async with` block that started it, or
with its parent if that is killed.
"""
