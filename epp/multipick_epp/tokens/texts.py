"""What a text must not hold to be tokenised."""

from multipick_epp.requests.base64_data import CUT
from multipick_epp.tokens.outcome import NoText


def check_unicode(text: str) -> None:
    """Raises NoText for half a character, which JSON can hold in the arguments of a tool call, and UTF-8 can not; and
    where something was cut out of the text.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise NoText("not a text") from error
    if CUT in text:
        raise NoText("base64 in a text")
