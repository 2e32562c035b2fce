"""`multipick replay`: a workload against policies, in simulated time.

In: a `Workload`, a pool of engine models, policies by name. The policies are the picker's own; what they are told
(`knowledge`) follows the rules of the picker's state, and a test holds it to `MemoryState` decision by decision. Out:
figures and curves of each run (`outcome`), a table, JSON and one HTML page (`report`).
"""
