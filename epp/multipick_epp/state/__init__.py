"""What pickers know together: which endpoint caches which block, and what is on each endpoint now.

In: deltas from `events/`, reservations from the picker. Out: hits and loads, without leaving the process, and one
atomic `reserve`. `MemoryState` serves one process; `RedisState` shares with every picker of the pool and outlives them.
Both pass the same contract suite.
"""
