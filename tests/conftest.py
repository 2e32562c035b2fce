"""What holds for all tests."""

from hypothesis import settings

# A machine that is busy must not fail a test: speed is held by `bench/`.
settings.register_profile("multipick", deadline=None)
settings.load_profile("multipick")
