"""How many tokens a request may have whose prompt can't be read: a guess by its size, for its charge alone.

Text and code have about four bytes a token. Base64 is no text: an image in it has the tokens of an image. So is an
upload of speech, which is no JSON.
"""

from collections.abc import Mapping

from multipick_epp.requests.base64_data import base64_texts
from multipick_epp.requests.chat_fields import CHARS_A_TOKEN, MEDIA_TOKENS

AUDIO_TOKENS = 1_500
"""For one upload of speech: what Whisper makes of a window of 30 s, which is what it computes at a time."""


def estimated_tokens(headers: Mapping[str, str], body: bytes | None, body_bytes: int) -> int:
    """At least 1. Takes 0.2 ms a megabyte, so it may be called anywhere. `body` is None where it was not read."""
    if headers.get("content-type", "").lower().startswith("multipart/"):
        return AUDIO_TOKENS
    data = [end - start for start, end in base64_texts(body or b"")]
    return max(1, (body_bytes - sum(data)) // CHARS_A_TOKEN + len(data) * MEDIA_TOKENS)
