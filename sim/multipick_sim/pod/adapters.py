"""The LoRA adapters of a pod: those of its command line, and those that come and go while it runs.

As vLLM 0.32 has it (entrypoints/openai/models/serving.py): in VLLM_ALLOW_RUNTIME_LORA_UPDATING's case, by
`POST /v1/load_lora_adapter` and `/v1/unload_lora_adapter`.
"""

from collections.abc import Iterator, Sequence
from itertools import count
from typing import NamedTuple

from multipick_sim.pod.refused import Refused, bad_request

MAX_ADAPTERS = 1024


class Adapter(NamedTuple):
    """One that is loaded; each load has an id of its own."""

    name: str
    id: int
    path: str


class Adapters:
    """By name. A request keeps the adapter that it was taken with."""

    def __init__(self, names: Sequence[str], models: Sequence[str]) -> None:
        self._ids = count(1)
        self._models = models
        self._loaded = {name: Adapter(name, next(self._ids), name) for name in names}

    def __iter__(self) -> Iterator[Adapter]:
        """In the order in which they were loaded."""
        return iter(self._loaded.values())

    def __len__(self) -> int:
        """How many are loaded."""
        return len(self._loaded)

    def find(self, name: str | None) -> Adapter | None:
        """The adapter of this name, if it is loaded."""
        return self._loaded.get(name or "")

    def load(self, name: str, path: str, in_place: bool) -> Refused | None:
        """Load one, in vLLM's words where that can't be."""
        if not name or not path:
            return _invalid("Both 'lora_name' and 'lora_path' must be provided.")
        if name in self._models:
            return _invalid(f"The lora adapter '{name}' conflicts with a served base model.")
        if name in self._loaded and not in_place:
            return _invalid(
                f"The lora adapter '{name}' has already been loaded. If you want to load the adapter in place, set "
                "'load_inplace' to True."
            )
        if name not in self._loaded and len(self._loaded) >= MAX_ADAPTERS:
            return bad_request(f"A simulated engine keeps {MAX_ADAPTERS} adapters.")
        self._loaded[name] = Adapter(name, next(self._ids), path)
        return None

    def unload(self, name: str) -> Refused | None:
        """Unload one, in vLLM's words where that can't be."""
        if not name:
            return _invalid("'lora_name' needs to be provided to unload a LoRA adapter.")
        if self._loaded.pop(name, None) is None:
            return Refused(404, "NotFoundError", f"The lora adapter '{name}' cannot be found.")
        return None


def _invalid(message: str) -> Refused:
    return Refused(400, "InvalidUserInput", message)
