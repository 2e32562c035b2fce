"""Simulated engines and everything that runs multipick without a GPU: pods, traffic, traces, the demo.

It uses the picker's own state, policy and token code, never the reverse.
"""
