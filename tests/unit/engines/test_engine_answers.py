"""What engines say is checked before anybody sees it: each kind of answer, by what real and odd engines answer."""

from array import array

import pytest
from multipick_epp.engines import event_sources, models, token_ids, version
from multipick_epp.engines.event_sources import EventSource
from multipick_epp.engines.models import ServedModels


@pytest.mark.parametrize(
    ("body", "served"),
    [
        (
            b'{"object": "list", "data": [{"id": "a", "owned_by": "vllm", "max_model_len": 1}]}',
            ServedModels(["a"], max_model_len=1),
        ),
        (
            b'{"data": [{"id": "a"}, {"id": "lora", "parent": "a", "root": "/l"}]}',
            ServedModels(["a"], adapters=frozenset({"lora"})),
        ),
        (b'{"data": [{"id": "a", "owned_by": "sglang", "parent": null}]}', ServedModels(["a"], takes_any=True)),
        (b'{"data": [{"id": "a", "owned_by": null}]}', ServedModels(["a"])),
        (b'{"data": [{"id": "a", "max_model_len": 0}]}', ServedModels(["a"])),
        (b'{"data": [{"id": "a", "max_model_len": 99999999999}]}', ServedModels(["a"])),
        (b'{"data": [{"id": "a"}, {"id": "' + b"b" * 70_000 + b'"}]}', ServedModels(["a"])),
        (b'{"data": []}', ServedModels([])),
        (
            b'{"data": [{"id": "a"}, {"id": 1}, null, {"id": "b", "parent": {}}, {"id": "l", "parent": "a"}]}',
            ServedModels(["a"], adapters=frozenset({"l"})),
        ),
        (b'{"data": [{"id": 1}]}', None),
        (b'{"data": [' + b'{"id": "a"},' * 20_000 + b'{"id": "a"}]}', None),
        (b"[]", None),
        (b"<html>", None),
        (b'{"data": [{"id": "\xff"}]}', None),
        (b'{"data": ' + b"[" * 100_000, None),
    ],
)
def test_models_are_read_with_their_adapters(body: bytes, served: ServedModels | None) -> None:
    assert models.parse(body) == served


@pytest.mark.parametrize(
    ("body", "sources"),
    [
        (b"{}", {}),
        (
            b'{"0": {"endpoint": "tcp://*:1", "replay_endpoint": null, "topic": "", "hwm": 5}, "1": {}}',
            {0: EventSource("tcp://*:1"), 1: EventSource()},
        ),
        (b'{"x": {}}', None),
        (b'{"-1": {}}', None),
        (b'{"99999999999": {}}', None),
        ("{" + ",".join(f'"{rank}": {{}}' for rank in range(2000)) + "}", None),
        (b'{"0": {"buffer_steps": 1.5}}', None),
        (b"[]", None),
        (b"\xff\xfe", None),
        (b'{"a":' * 100_000, None),
    ],
)
def test_event_sources_are_read_by_rank(body: bytes | str, sources: dict[int, EventSource] | None) -> None:
    assert event_sources.parse(body.encode() if isinstance(body, str) else body) == sources


@pytest.mark.parametrize(
    ("body", "ids"),
    [
        (b'{"count": 3, "max_model_len": 100, "tokens": [1, 2, 3], "token_strs": null}', [1, 2, 3]),
        (b'{"tokens":[4294967295]}', [4294967295]),
        (b'{"tokens": [\n  1,\n  2\n ]}', [1, 2]),
        (b'{"tokens": []}', []),
        (b'{"tokens": [4294967296]}', None),
        (b'{"tokens": [-1]}', None),
        (b'{"tokens": [1.5]}', None),
        (b'{"tokens": [1,]}', None),
        (b'{"tokens": ["a"]}', None),
        (b'{"tokens": [[1]]}', None),
        (b'{"tokens": [' + b"1" * 5000 + b"]}", None),
        (b'{"count": 3}', None),
        (b"", None),
    ],
)
async def test_token_ids_are_read(body: bytes, ids: list[int] | None) -> None:
    assert await token_ids.parse(body, 100) == (None if ids is None else array("I", ids))


async def test_token_ids_of_a_long_prompt_are_read_whole() -> None:
    ids = [*range(0, 400_000, 7)]
    body = b'{"count": %d, "tokens": [%s]}' % (len(ids), ",".join(map(str, ids)).encode())
    found = await token_ids.parse(body, len(ids))
    assert found is not None
    assert list(found) == ids
    assert await token_ids.parse(body, len(ids) - 1) is None


@pytest.mark.parametrize(
    ("body", "numbers"),
    [
        (b'{"version": "0.32.0"}', (0, 32)),
        (b'{"version": "0.12.0rc1+cu126", "more": 1}', (0, 12)),
        (b'{"version": "10.2"}', (10, 2)),
        (b'{"version": "1"}', None),
        (b'{"version": "dev"}', None),
        (b'{"version": "0.' + b"9" * 5000 + b'"}', None),
        (b'{"version": 0.32}', None),
        (b"{}", None),
        (b"\xff", None),
        (b"[" * 100_000, None),
    ],
)
def test_a_release_is_read_by_its_first_two_numbers(body: bytes, numbers: tuple[int, int] | None) -> None:
    assert version.parse(body) == numbers
