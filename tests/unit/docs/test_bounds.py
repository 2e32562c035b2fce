"""Bounds that pages tell are those of the code."""

from pathlib import Path

import pytest
from multipick_epp.checks import checker, drift
from multipick_epp.decision import explained, grown_keys, predictions, prompts
from multipick_epp.events import decode, feed, ingest, key_table, link, sequence, source, tracker, unnamed, upload
from multipick_epp.extproc.connections import Connections
from multipick_epp.extproc.http2.bounds import Bounds
from multipick_epp.pods import outliers, ranks
from multipick_epp.requests import body, chat_fields, estimate, token_ids
from multipick_epp.state import caches, lookup
from multipick_epp.state.redis import audit, ingest_lease, keys, loads, parts, records, sets, state, tail, turns
from multipick_epp.state.redis import link as store_link
from multipick_epp.tokens import chunks, grown, harmony_bounds, template
from multipick_operator import observing
from multipick_operator.api import rules
from multipick_operator.children import picker, pod

DOCS = Path(__file__).parents[3] / "docs"
MIB = 1 << 20
HTTP2, PORT = Bounds(), Connections()

CONFIGURATION = (
    f"looked up and the rest counts as new; {token_ids.MAX_PROMPTS:,} are read",
    f"the first {prompts.MAX_KNOWN_PROMPTS} are looked up",
    f"to {token_ids.MAX_TOKENS:,} tokens",
    f"more than {body.MAX_VALUES:,} JSON values",
    f"{PORT.most:,}; {PORT.handshake_s:.0f} s for the handshake; closed after {PORT.idle_s:.0f} s without a stream",
    f"not answered within {PORT.pong_s:.0f} s",
    f"{HTTP2.streams:,} streams a connection and {HTTP2.all_streams:,} in all",
    f"{HTTP2.held // MIB} MB of messages",
    f"{HTTP2.header_list >> 10} KB of headers; {HTTP2.frame_s:.0f} s\nfor a frame, {HTTP2.stalled_s / 60:.0f} minutes",
    f"up to {HTTP2.idle_work:,.0f} at once and {HTTP2.idle_work_per_s:,.0f} a second",
)
EVENTS = (
    f"| one message | {decode.MAX_PAYLOAD_BYTES // MIB} MiB, where an engine's largest are below 1 MiB; "
    f"{link.MAX_FRAMES} frames; {link.MAX_MESSAGE_BYTES // MIB} MiB before",
    f"| one batch | {decode.MAX_EVENTS:,} events, {decode.MAX_BLOCKS:,} blocks, {decode.MAX_CLEARS} clears |",
    f"(a client's salt) | {decode.MAX_EXTRA_BYTES >> 10} KiB |",
    f"| messages that a socket queues | {link.QUEUED_MESSAGES};",
    f"| one endpoint's turn | {source.TURN_S * 1e3:.0f} ms",
    f"| {sequence.MAX_HELD_BATCHES:,} or {sequence.MAX_HELD_BYTES // MIB} MiB |",
    f"| {key_table.MAX_WAITING_BLOCKS:,} blocks, {key_table.MAX_WAITING_BYTES // MIB} MiB, a block size |",
    f"| blocks without a key, a cache | {unnamed.MAX_UNNAMED:,} |",
    f"| caches, an endpoint | {caches.CACHES_AT_MOST} |",
    f"| block sizes, an endpoint | {tracker.MAX_BLOCK_SIZES} (",
    f"| 2^{feed.MAX_ENTRIES.bit_length() - 1} an endpoint (2 million blocks), "
    f"2^{ingest.MAX_ALL_ENTRIES.bit_length() - 1} in the process",
    f"| {upload.OPERATIONS_PER_S:,} a second and endpoint |",
    f"| changes the state doesn't take | 2^{feed.MAX_PENDING.bit_length() - 1} an endpoint |",
    f"asked for them every {source.PROBE_S:g} s",
    f"holds blocks ({tracker.MIN_TURN} at least)",
    f"more than {ranks.RANKS_AT_MOST} behind a port",
    f"every {ingest.FLUSH_S * 1e3:.0f} ms,",
)
METRICS = (
    f"their last {explained.KEPT:,} decisions",
    f"for two windows of {drift.WINDOW_S / 60:.0f} minutes and {drift.MIN_PROMPT_TOKENS:,} tokens",
    f"| `events` | for {checker.EVENTS_S:.0f} s:",
    f"{checker.AT_ONCE} at a time, {checker.ASK_S:.0f} s each",
    f"for {outliers.FIRST_PAUSE_S:.0f} s, then 10, 20, up to {outliers.LONGEST_PAUSE_S:.0f} s",
)
OPERATOR = (
    f"A pool's name has at most {rules.MAX_NAME} letters, that of a new one {rules.MAX_GROUPED_NAME} where",
    f"must have been ready for {picker.GATEWAYS_LEARN_S} s before an old one goes",
    f"is told to end after {picker.GATEWAYS_FORGET_S} s",
    f"is not ready after {picker.ROLLOUT_S // 60} minutes",
    f"The grace period is both and {pod.SHUTDOWN_MARGIN_S} s",
    f"one with a trouble there every {observing.REPORTS_S:.0f} s",
)
PROMPTS = (
    f"| ids of the beginnings of texts, {grown.STRIDE_CHARS:,} characters each |",
    f"between words after {chunks.CHUNK_CHARS:,} characters |",
    f"| block keys of beginnings, {grown_keys.STRIDE_TOKENS:,} tokens each |",
    f"| {prompts.KNOWN_KEYS_BYTES // MIB} MB, {grown_keys.KEPT_TOKENS:,} tokens a prompt |",
    f"functions above {harmony_bounds.NAME_CHARS} characters, tools above {harmony_bounds.TOOLS_CHARS:,} characters",
    f"counted by its depth, are more than {template.MAX_INDENTED:,} |",
    f"arguments of calls with more than {body.MAX_VALUES:,} JSON values",
    f"{chat_fields.MEDIA_TOKENS:,} tokens an image",
    f"{estimate.AUDIO_TOKENS:,} an\nupload of speech",
    f"one exact prediction of {predictions.EVERY} is held",
)
STATE = (
    f"expires {keys.KEEP_S // 60} minutes after",
    f"about {keys.LOG_ENTRIES:,} entries",
    f"about {keys.HINT_ENTRIES:,} entries",
    f"first {records.HINT_KEYS:,} blocks",
    f"Of {sets.NAMES_AT_MOST:,} modes or owners",
    f"more than {parts.OPERATIONS_A_CALL} operations",
    f"at most {turns.STEPS_A_CALL} steps",
    f"({turns.ALONE_S * 1e3:.0f} ms where the picker is alone)",
    f"At most {lookup.SAMPLES} blocks",
    f"has not for {ingest_lease.OWNER_LEASE_S:g} s",
    f"has not for {audit.REAP_AFTER_S:.0f} s",
    f"for longer than {ingest_lease.NEWCOMER_S:g} s",
    f"`loads` {loads.STALL_S * 1e3:.0f} ms, `writer` {state.WRITER_STALL_S:.0f} s, `tail` {tail.STALL_S:g} s",
    f"{store_link.FIRST_PAUSE_S / 2 * 1e3:.0f} ms to {store_link.LONGEST_PAUSE_S:.0f} s",
    f"as last seen for {loads.FORGET_OTHERS_S:.0f} s",
)

PAGES = {
    "configuration": CONFIGURATION,
    "events": EVENTS,
    "metrics": METRICS,
    "operator": OPERATOR,
    "prompts": PROMPTS,
    "state": STATE,
}


@pytest.mark.parametrize(
    ("page", "told"),
    [(page, words) for page, said in PAGES.items() for words in said],
)
def test_a_page_tells_the_bound_that_there_is(page: str, told: str) -> None:
    assert " ".join(told.split()) in " ".join((DOCS / f"{page}.md").read_text().split())
