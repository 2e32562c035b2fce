"""`multipick demo`: all of multipick on one machine, under traffic, once for each policy.

In: a command line. Out: a table, a verdict, optionally JSON. For each policy `stack` starts Valkey, simulated pods, a
picker and Envoy anew, `traffic.client` sends the same plan through Envoy, `display` shows it; `report` compares at the
end. Called by the console script.
"""
