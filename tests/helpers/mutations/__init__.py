"""Requests of all APIs with something wrong in them, and what a picker makes of each.

`make test` sends some thousands; `make mutations` 100,000, or as many as one likes.
"""
