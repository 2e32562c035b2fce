"""SGLang's `lora_path` in OpenAI requests: the name of an adapter, or a list with one for each prompt.

Rules of SGLang (`entrypoints/openai/protocol.py`, `serving_base.py`). vLLM ignores the field, so nothing in it makes a
request unreadable by itself.
"""

import msgspec

from multipick_epp.requests.body import SLICE_BYTES, Unreadable

_NAMES = msgspec.json.Decoder(str | list[str | None] | None)


def lora_names(field: msgspec.Raw) -> frozenset[str | None]:
    """The adapters that it names, None for the base model; empty where it is not given, or no such field: an engine
    that goes by it refuses that. Raises Unreadable where it is longer than anybody reads.
    """
    if not field:
        return frozenset()
    if len(memoryview(field)) > SLICE_BYTES:
        raise Unreadable("a name for each prompt")
    try:
        names = _NAMES.decode(field)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return frozenset()
    return frozenset(names if isinstance(names, list) else filter(None, [names]))
