"""A pool as it runs in a cluster, each part a process of its own: for the suites that try whole pools on this machine.

`process` has the parts, `truth` what a pod really has cached, `stack` puts them together and asks them what they know.
"""
