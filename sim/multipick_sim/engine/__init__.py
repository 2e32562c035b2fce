"""One vLLM engine as a discrete-event model: continuous batching over a pool of KV-cache blocks, no clock, no I/O.

In: requests whose prompt and answer are known as hashes of blocks, and a time to advance to. Out: steps, each with its
end, what it computed, the requests it touched and the KV events, in vLLM's order. The simulated pod runs it in real
time, the replay of traces as fast as it goes. Rules: vLLM v1 with one full-attention group, synchronous scheduling.
"""
