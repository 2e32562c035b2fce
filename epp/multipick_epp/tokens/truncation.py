"""What an engine keeps of a prompt that the request wants cut (`truncate_prompt_tokens`), as vLLM 0.32 does it.

Where no side is named, a text is cut by its tokenizer, which keeps the special tokens around it and counts them in.
What is named is cut afterwards, from all tokens alike; so are chats that come from a library as tokens. gpt-oss's chats
are never cut.
"""

from array import array

from multipick_epp.requests.prompt import Chat, Text, Truncation
from multipick_epp.tokens.families import Family
from multipick_epp.tokens.outcome import NoText
from multipick_epp.tokens.segments import Ids
from multipick_epp.tokens.special import Surround


def truncation_by(family: Family, source: Text | Chat) -> Truncation | None:
    """What the engine makes of the request's wish."""
    wish, is_chat = source.truncation, isinstance(source, Chat)
    if wish is None or (is_chat and family is Family.HARMONY):
        return None
    return wish._replace(named=True) if is_chat and family is Family.MISTRAL else wish


def kept(ids: Ids, around: Surround, truncation: Truncation | None) -> "array[int]":
    """The ids of a text with those `around` it, less what is cut. Raises NoText where these alone are too many."""
    if truncation is None:
        return around.with_(ids)
    if truncation.named:
        return truncation.cut(around.with_(ids))
    room = truncation.tokens - len(array("I", around.before + around.after))
    if room < 0:
        raise NoText("truncated prompt")
    return around.with_(truncation._replace(tokens=room).cut(array("I", ids)).tobytes() if room else b"")
