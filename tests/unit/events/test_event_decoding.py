"""Every encoding that an engine has used since vLLM 0.9.2 and SGLang 0.4.10 reads as the same events."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from multipick_epp.blocks import encode_extra, token_bytes
from multipick_epp.events.decode import (
    MAX_BLOCKS,
    MAX_CLEARS,
    MAX_EVENTS,
    MAX_EXTRA_BYTES,
    MAX_PAYLOAD_BYTES,
    Cleared,
    Event,
    Removed,
    Stored,
    UndecodableBatch,
    decode,
)

FORMS = json.loads((Path(__file__).parents[2] / "fixtures/encodings/encodings.json").read_text())


def payload(*events: Any, rank: int = 0) -> bytes:
    return msgspec.msgpack.encode([1700000000.25, list(events), rank])


def stored(**fields: Any) -> dict[str, Any]:
    default = {"block_hashes": [1], "parent_block_hash": None, "token_ids": [1, 2], "block_size": 2, "lora_id": None}
    return {"type": "BlockStored", **default, **fields}


def only(*events: Any) -> Stored:
    (event,) = decode(payload(*events)).events
    assert isinstance(event, Stored)
    return event


def expected(form: dict[str, Any]) -> list[Event]:
    """What the batch says, as far as this release's fields tell."""
    fields = form["stored_fields"]
    first_hash = 0xFFFF_FFFF_FFFF_FFFB  # which SGLang writes as -5
    extras = {0: encode_extra(["saltA"])} if "extra_keys" in fields else {}
    lora = "ad1" if "lora_name" in fields else "\0lora-id-7"
    return [
        Stored(
            [first_hash, 102], None, token_bytes(range(11, 19)), 4, "GPU", 0, "full_attention", 0, None, extras, False
        ),
        Stored([103], 102, token_bytes([1, 2, 3, 4]), 4, "GPU", 0, "full_attention", 0, lora, {}, False),
        Removed([102], "GPU", 0, False),
        Cleared(),
    ]


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f"{f['engine']}-{f['hash_variant']}-{f['event_encoding']}")
def test_every_release_of_vllm_and_sglang_is_read(form: dict[str, Any]) -> None:
    batch = decode(bytes.fromhex(form["payload_hex"]))
    assert batch.events == expected(form)
    assert (batch.published_s, batch.rank, batch.unreadable, batch.unknown) == (1700000000.25, 0, 0, 0)


def test_raw_digests_are_the_ints_that_the_engine_would_have_sent() -> None:
    digest = bytes(range(32))
    assert only(stored(block_hashes=[digest], parent_block_hash=digest)).hashes == [int.from_bytes(digest[-8:], "big")]
    assert only(stored(block_hashes=[digest[-16:]])).hashes == [int.from_bytes(digest[-8:], "big")]


def test_unknown_fields_are_ignored() -> None:
    assert only(stored(lookahead_token_ids=[3], something={"new": [1]})) == only(stored())
    assert only(["BlockStored", [1], None, [1, 2], 2, None, "GPU", None, None, 0, None, None, "more", [1]]) == only(
        stored()
    )


def test_a_bad_event_never_loses_its_batch() -> None:
    bad = [stored(block_hashes="no"), stored(token_ids=[-1]), stored(token_ids=[1 << 32]), ["BlockRemoved"]]
    batch = decode(payload(stored(), *bad, ["AllBlocksCleared"]))
    assert [type(event) for event in batch.events] == [Stored, Cleared]
    assert (batch.unreadable, batch.unknown) == (4, 0)


def test_an_event_of_an_unknown_kind_is_no_damage() -> None:
    batch = decode(payload({"type": "BlockMigrated"}, ["Future", 1], 7, [], stored()))
    assert len(batch.events) == 1
    assert (batch.unreadable, batch.unknown) == (0, 4)


@pytest.mark.parametrize(
    "hostile",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode({"a": 1}),
        msgspec.msgpack.encode([1.0]),
        b"\x92\xcb" + bytes(8) + b"\xdd\xff\xff\xff\xff",  # claims 4 billion events
        b"\x92\xcb" + bytes(8) + b"\x91" + b"\x91" * 2_000_000 + b"\xc0",  # nested two million deep
        bytes(MAX_PAYLOAD_BYTES + 1),
    ],
    ids=["empty", "invalid", "map", "short", "huge count", "deep", "too large"],
)
def test_what_is_no_batch_is_refused(hostile: bytes) -> None:
    with pytest.raises(UndecodableBatch):
        decode(hostile)


def test_the_adapter_is_not_repeated_in_the_extras() -> None:
    event = only(
        stored(block_hashes=[1, 2], token_ids=[1, 2, 3, 4], lora_name="ad1", extra_keys=[["ad1", "S"], ["ad1"]])
    )
    assert event.lora == "ad1"
    assert event.extras == {0: encode_extra(["S"])}


def test_extras_of_no_block_are_not_kept() -> None:
    event = only(stored(block_hashes=[1, 2], token_ids=[1, 2, 3, 4], extra_keys=[None, ["S"], ["T"], *[["U"]] * 1_000]))
    assert event.extras == {1: encode_extra(["S"])}


def test_an_adapter_known_by_number_alone_never_matches_a_request() -> None:
    assert only(stored(lora_id=3)).lora not in (None, "3")


def test_sglangs_salt_is_that_of_the_first_block() -> None:
    salted = {0: encode_extra(["tenant"])}
    assert only(stored(cache_salt="tenant")).extras == salted
    assert only(["BlockStored", [1], None, [1, 2], 2, None, "GPU", {"cache_salt": "tenant"}]).extras == salted
    assert only(stored(cache_salt="tenant", parent_block_hash=9)).extras == {}


def test_multimodal_ids_and_digests_are_extras() -> None:
    values = [["image-hash", 3], b"\x01\x02"]
    assert only(stored(extra_keys=[values])).extras == {0: encode_extra(values)}


def test_what_lies_elsewhere_is_marked() -> None:
    batch = decode(
        payload(
            stored(locality="REMOTE"), {"type": "BlockRemoved", "block_hashes": [1], "locality": "REMOTE"}, stored()
        )
    )
    assert [event.remote for event in batch.events if not isinstance(event, Cleared)] == [True, True, False]


def test_the_rank_is_the_batchs() -> None:
    assert decode(payload(rank=3)).rank == 3
    assert decode(msgspec.msgpack.encode([1.0, [], None])).rank == 0


LONG = "x" * 70_000
ARRAY_FIELDS = (
    *("block_hashes", "parent_block_hash", "token_ids", "block_size", "lora_id", "medium", "lora_name", "extra_keys"),
    *("group_idx", "kv_cache_spec_kind", "kv_cache_spec_sliding_window"),
)


@pytest.mark.parametrize(
    "beyond",
    [
        {"medium": LONG},
        {"medium": "x" * 33},
        {"kv_cache_spec_kind": LONG},
        {"lora_name": LONG},
        {"group_idx": -1},
        {"group_idx": 1 << 40},
        {"kv_cache_spec_sliding_window": -1},
        {"kv_cache_spec_sliding_window": 1 << 62},
        {"block_size": -1},
        {"block_size": 1 << 40},
        {"block_hashes": [b""]},
        {"block_hashes": [bytes(65)]},
        {"block_hashes": [1] * (MAX_BLOCKS + 1)},
        {"parent_block_hash": bytes(65)},
        {"token_ids": [1 << 40]},
        {"extra_keys": [1]},
        {"extra_keys": [None] * (MAX_BLOCKS + 1)},
        {"extra_keys": "no"},
    ],
    ids=lambda fields: ", ".join(fields),
)
def test_an_event_beyond_the_bounds_is_unreadable_and_its_batch_is_not(beyond: dict[str, Any]) -> None:
    in_map = stored(**beyond)
    in_array = ["BlockStored", *(in_map.get(field) for field in ARRAY_FIELDS)]
    batch = decode(payload(in_map, stored(), in_array))
    assert (len(batch.events), batch.unreadable, batch.unknown) == (1, 2, 0)


@pytest.mark.parametrize("beyond", [{"medium": LONG}, {"group_idx": -1}, {"block_hashes": [bytes(65)]}])
def test_so_is_a_removal(beyond: dict[str, Any]) -> None:
    batch = decode(payload({"type": "BlockRemoved", "block_hashes": [1], **beyond}, stored()))
    assert (len(batch.events), batch.unreadable) == (1, 1)


@pytest.mark.parametrize(
    ("published_s", "rank"),
    [
        (float("nan"), 0),
        (float("inf"), 0),
        (float("-inf"), 0),
        (-1.0, 0),
        (1e300, 0),
        (1 << 63, 0),
        (1.0, -1),
        (1.0, 1 << 60),
        (1.0, "0"),
    ],
)
def test_a_batch_of_no_time_or_rank_is_none(published_s: float, rank: Any) -> None:
    with pytest.raises(UndecodableBatch):
        decode(msgspec.msgpack.encode([published_s, [stored()], rank]))


@pytest.mark.parametrize(
    "events",
    [
        [None] * (MAX_EVENTS + 1),
        [["AllBlocksCleared"]] * (MAX_CLEARS + 1),
        [{"type": "BlockRemoved", "block_hashes": [1] * MAX_BLOCKS}, stored()],
    ],
    ids=["events", "clears", "blocks"],
)
def test_a_batch_that_would_take_too_long_is_none(events: list[Any]) -> None:
    with pytest.raises(UndecodableBatch):
        decode(payload(*events))


def test_a_clients_huge_salt_damages_nothing() -> None:
    """Any client may send one, and its engine tells us: the block is known by a digest, and equal salts are equal."""
    batches = [decode(payload(stored(extra_keys=[["s" * MAX_EXTRA_BYTES + end]]))) for end in ("a", "a", "b")]
    first, same, other = (batch.events[0] for batch in batches)
    assert first == same != other
    assert isinstance(first, Stored)
    assert (len(first.extras[0]) < 100, sum(batch.unreadable for batch in batches)) == (True, 0)
    assert len(only(stored(cache_salt="s" * 100_000)).extras[0]) < 100


def test_media_are_told_in_capitals() -> None:
    assert only(stored(medium="Cpu_Pinned")).medium == "CPU_PINNED"
    assert only(stored(medium="gpu")).medium == only(stored(medium="")).medium == "GPU"
