"""What a picker gets that asks an engine, by its render paths and, where those are closed, by `/tokenize`."""

import asyncio
import json
from collections.abc import Mapping, Sequence

from multipick_epp.engines import EngineClient, Unanswered, Why
from multipick_epp.requests import parse
from multipick_epp.requests.prompt import Prompt
from multipick_epp.tokens import RemoteTokenizer, Untokenised
from multipick_epp.types import Endpoint

from .cases import COMPLETIONS, Case
from .compare import Ids, Row, ask, body_of, count


class _Closed(EngineClient):
    """As of an engine without `--enable-scale-out`."""

    async def render(self, *_: object) -> Unanswered:
        return Unanswered(Why.REFUSED, status=403)


def compare_remote(address: str, cases: Sequence[Case]) -> Mapping[str, Row]:
    """Chats of all kinds, by the path that was asked."""
    return asyncio.run(_compare(address, [case for case in cases if case.path != COMPLETIONS]))


async def _compare(address: str, cases: Sequence[Case]) -> Mapping[str, Row]:
    rows = {}
    for name, client in (("asked to render", EngineClient()), ("asked to tokenize", _Closed())):
        await client.start()
        endpoint = Endpoint(address.removeprefix("http://"))
        remote = RemoteTokenizer(client, lambda endpoint=endpoint: endpoint, "m", 60.0)  # type: ignore[misc]
        rows[name] = Row()
        for case in cases:
            theirs = await asyncio.to_thread(ask, address, case)
            count(rows[name], case, await _make(remote, case), theirs)
        await client.close()
    return rows


async def _make(remote: RemoteTokenizer, case: Case) -> Ids | str:
    prompt = parse(case.path, {}, json.dumps(body_of(case)).encode())
    if not isinstance(prompt, Prompt):
        return prompt.reason
    ids = await remote.encode(prompt.source)
    return ids.reason if isinstance(ids, Untokenised) else [list(ids)]
