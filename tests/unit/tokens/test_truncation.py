"""What engines keep of a prompt that is to be cut; tests/parity holds it to a real one, request by request."""

from array import array

import pytest
from multipick_epp.requests.prompt import Chat, Text, Truncation
from multipick_epp.tokens import Tokenizer, Untokenised
from multipick_epp.tokens.families import Family
from multipick_epp.tokens.outcome import NoText
from multipick_epp.tokens.segments import as_ids
from multipick_epp.tokens.special import Surround
from multipick_epp.tokens.truncation import kept, truncation_by

AROUND = Surround(as_ids([1]), as_ids([2]))
IDS = as_ids([10, 11, 12, 13])


@pytest.mark.parametrize(
    ("truncation", "found"),
    [
        (None, [1, 10, 11, 12, 13, 2]),
        (Truncation(6, left=True), [1, 10, 11, 12, 13, 2]),
        (Truncation(4, left=True), [1, 12, 13, 2]),
        (Truncation(4, left=False), [1, 10, 11, 2]),
        (Truncation(2, left=True), [1, 2]),
        (Truncation(4, left=True, named=True), [11, 12, 13, 2]),
        (Truncation(4, left=False, named=True), [1, 10, 11, 12]),
        (Truncation(1, left=False, named=True), [1]),
    ],
)
def test_special_tokens_stay_where_no_side_is_named(truncation: Truncation | None, found: list[int]) -> None:
    assert kept(IDS, AROUND, truncation) == array("I", found)


def test_what_has_no_room_for_the_special_tokens_is_not_guessed_at() -> None:
    with pytest.raises(NoText, match="truncated prompt"):
        kept(IDS, AROUND, Truncation(1, left=True))


WISH = Truncation(3, left=True)


@pytest.mark.parametrize(
    ("family", "source", "wanted"),
    [
        (Family.TEMPLATE, Text("a", truncation=WISH), WISH),
        (Family.TEMPLATE, Chat([], truncation=WISH), WISH),
        (Family.HARMONY, Text("a", truncation=WISH), WISH),
        (Family.HARMONY, Chat([], truncation=WISH), None),
        (Family.MISTRAL, Text("a", truncation=WISH), WISH),
        (Family.MISTRAL, Chat([], truncation=WISH), Truncation(3, left=True, named=True)),
        (Family.MISTRAL, Text("a", truncation=WISH._replace(named=True)), WISH._replace(named=True)),
    ],
)
def test_each_family_cuts_in_its_own_way(family: Family, source: Text | Chat, wanted: Truncation | None) -> None:
    assert truncation_by(family, source) == wanted


def test_the_ids_of_a_text_are_cut(tokenizer: Tokenizer) -> None:
    whole = tokenizer.encode_now(Text("some words of a text", add_special_tokens=False))
    cut = tokenizer.encode_now(Text("some words of a text", add_special_tokens=False, truncation=WISH))
    assert not isinstance(whole, Untokenised)
    assert len(whole) > 3
    assert cut == whole[-3:]


def test_of_a_chat_with_media_nobody_knows_what_is_cut(tokenizer: Tokenizer) -> None:
    chat = Chat([{"role": "user", "content": [{"type": "image_url"}]}], multimodal=True, truncation=WISH)
    found = tokenizer.encode_now(chat)
    assert isinstance(found, Untokenised)
