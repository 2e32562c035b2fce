"""What the engine made of each case, kept in the repository: a digest of its ids, not the ids, let alone texts."""

import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import xxhash

FOLDER = Path(__file__).with_name("recorded")


def file_of(family: str) -> Path:
    """Of one family."""
    return FOLDER / (re.sub(r"[^A-Za-z0-9.]+", "-", family).strip("-") + ".json")


def digest(prompts: Sequence[Sequence[int]] | None) -> str | None:
    """Number of tokens and hash of the ids of all prompts; None for a request that was refused."""
    if prompts is None:
        return None
    told = ",".join(" ".join(map(str, ids)) for ids in prompts)
    return f"{sum(map(len, prompts))}:{xxhash.xxh3_64_hexdigest(told.encode())}"


def standing_still(day: str) -> type[datetime]:
    """A clock that shows this day, in ISO 8601: templates write the day."""

    class ThatDay(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "ThatDay":
            return cls.fromisoformat(day)

    return ThatDay
