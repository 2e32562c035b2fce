"""A fault lab: a whole pool under traffic, one thing broken at a time, and everything that must hold measured.

`traffic` sends requests and says what became of each, `blame` whose loss a lost one is, `lab` runs one fault from a
healthy pool to a healthy pool, `report` keeps the figures.
"""
