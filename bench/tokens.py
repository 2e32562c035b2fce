"""What parsing and tokenising a request cost: cold, seen before, and grown by one message.

    python bench/tokens.py [--json FILE] [--model FOLDER]

Prints four tables, of CPU time but for the third. Ratios to the cold time depend little on the machine; the bars are 5%
for the chat of 32,000 tokens whose last message is new, 10% of `tokenizers`' time for text that was never seen, and no
prompt that the default deadline leaves unread. With several models (`--model` again), each has its own.
"""

import argparse
import asyncio
import json
import os
import platform
import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from multipick_epp.config import Limits
from multipick_epp.decision.prompts import Blind, PromptReader
from multipick_epp.extproc.pick import PickRequest
from multipick_epp.requests import parse
from multipick_epp.requests.prompt import Prompt, TokenSource
from multipick_epp.telemetry.metrics import Metrics
from multipick_epp.tokens import Tokenizer, Untokenised
from multipick_epp.tokens.fast import encode_of
from multipick_epp.tokens.files import read_model

ROOT = Path(__file__).parents[1]
BAR = 0.05
LIBRARY_BAR = 0.1
QUESTIONS = 10
DEADLINE_S = Limits().decision_s
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"

Message = dict[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write all figures there")
    parser.add_argument("--model", type=Path, action="append", help="a tokenizer's folder; may be repeated")
    parser.add_argument("--repeat", type=int, default=7)
    arguments = parser.parse_args()
    models = arguments.model or [ROOT / "tests/fixtures/tiny-model"]
    figures = {model.name: measure(model, arguments.repeat) for model in models}
    if arguments.json:
        machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
        result = {"machine": machine, "python": platform.python_version(), "models": figures}
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


def measure(model: Path, repeat: int) -> dict[str, Any]:
    words = corpus()
    prompts = [(path, tokens) for path in (CHAT, TEXT) for tokens in (8_000, 32_000)]
    counting = Tokenizer.load(model)
    rows = [encode_row(model, counting, words, path, tokens, repeat) for path, tokens in prompts]
    counting.close()
    library = library_row(model, " ".join(words), repeat)
    read = asyncio.run(read_rows(model, words))
    parses = [parse_row(words, size) for size in (1_000, 8_000, 64_000)]
    names = ("cold ms", "seen ms", "grown ms", "seen/cold", "grown/cold")
    print(f"\n{model.name}\n{'prompt':>22}{'tokens':>8}" + "".join(f"{name:>11}" for name in names))
    for row in rows:
        times = f"{row['cold_ms']:>11.2f}{row['seen_ms']:>11.3f}{row['grown_ms']:>11.3f}"
        ratios = f"{row['seen_ratio']:>11.1%}{row['grown_ratio']:>11.1%}"
        print(f"{row['path']:>22} {row['tokens']:>7,}{times}{ratios}")
    print(f"\n{'never seen':>22}{'tokens':>8}{'ms':>9}{'tokenizers ms':>15}{'ratio':>8}")
    print(
        f"{library['name']:>22}{library['tokens']:>8,}{library['ms']:>9.2f}{library['usual_ms']:>15.2f}"
        f"{library['ratio']:>8.1%}"
    )
    print(
        f"\n{'prompt':>22}{'body bytes':>12}{'new document, ms':>18}{'new question, ms':>18}{'CPU ms':>8}{'blind':>7}"
    )
    for row in read:
        times = f"{row['document_ms']:>17.1f}{row['question_ms']:>17.1f}{row['cpu_ms']:>8.1f}"
        print(f"{row['name']:>24}{row['bytes']:>12,}{times}{row['blind']:>4}/{2 * QUESTIONS}")
    print(f"\n{'body bytes':>22}{'parse us':>10}")
    for row in parses:
        print(f"{row['bytes']:>22,}{row['parse_us']:>10.1f}")
    bars = {
        f"a 32k-token chat whose last message is new <= {BAR:.0%} of cold": rows[1]["grown_ratio"] <= BAR,
        f"text never seen <= {LIBRARY_BAR:.0%} of tokenizers": library["ratio"] <= LIBRARY_BAR,
        f"none of these unread after {DEADLINE_S:g} s": not any(row["blind"] for row in read),
    }
    print("\n" + "\n".join(f"bar: {bar}: {'met' if met else 'MISSED'}" for bar, met in bars.items()))
    return {"encode": rows, "library": library, "read": read, "parse": parses, "bars": bars}


def corpus() -> list[str]:
    """The words of this project's own sources: English and code."""
    files = [*sorted((ROOT / "epp").rglob("*.py")), ROOT / "README.md"]
    return " ".join(file.read_text() for file in files).split(" ")


def conversation(words: list[str], count: int, seed: int) -> list[Message]:
    """A system prompt and turns of about 250 tokens each, nothing of which occurs with another seed."""
    random_ = random.Random(seed)
    roles = ["system", *(("user", "assistant")[index % 2] for index in range(count - 1))]
    chat = []
    for role in roles:
        start = random_.randrange(len(words) - 120)
        chat.append({"role": role, "content": f"{random_.random()} " + " ".join(words[start : start + 120])})
    return chat


def body(path: str, chat: list[Message]) -> bytes:
    """The request of a chat; as a completion, all its messages in one text."""
    text = "\n\n".join(message["content"] for message in chat)
    prompt: dict[str, Any] = {"messages": chat} if path == CHAT else {"prompt": text}
    return json.dumps({"model": "m"} | prompt, ensure_ascii=False).encode()


def source(path: str, chat: list[Message]) -> TokenSource:
    prompt = parse(path, {}, body(path, chat))
    assert isinstance(prompt, Prompt)
    return prompt.source


def best(times: list[float]) -> float:
    """What the work takes when nothing else wants the processor."""
    return min(times)


def timed(work: Callable[[], Any]) -> float:
    """CPU time of all threads: what else runs on the machine doesn't count."""
    start = time.process_time()
    work()
    return time.process_time() - start


def encode_s(tokenizer: Tokenizer, source: TokenSource) -> float:
    return timed(lambda: tokenizer.encode_now(source))


def encode_row(
    model: Path, counting: Tokenizer, words: list[str], path: str, tokens: int, repeat: int
) -> dict[str, Any]:
    cold, seen, grown = [], [], []
    length = 0
    for seed in range(repeat):
        chat = conversation(words, 2, 1_000 * seed)
        while (length := count(counting, source(path, chat))) < tokens:
            missing = (tokens - length) // 300 + 1
            chat += conversation(words, 1 + missing, len(chat) + 1_000 * seed)[1:]
        tokenizer = Tokenizer.load(model)
        first, longer = source(path, chat), source(path, chat + conversation(words, 2, 999 + 1_000 * seed)[1:])
        cold.append(encode_s(tokenizer, first))
        seen.append(encode_s(tokenizer, first))
        grown.append(encode_s(tokenizer, longer))
        tokenizer.close()
    cold_ms, seen_ms, grown_ms = (best(times) * 1e3 for times in (cold, seen, grown))
    times = {"cold_ms": cold_ms, "seen_ms": seen_ms, "grown_ms": grown_ms}
    return {"path": path, "tokens": length, **times, "seen_ratio": seen_ms / cold_ms, "grown_ratio": grown_ms / cold_ms}


def count(tokenizer: Tokenizer, source: TokenSource) -> int:
    ids = tokenizer.encode_now(source)
    assert not isinstance(ids, Untokenised)
    return len(ids)


def library_row(model: Path, text: str, repeat: int) -> dict[str, Any]:
    """What makes the ids here, beside `tokenizers`, on 32,000 tokens of text that neither has seen."""
    backend = read_model(model).backend
    own = encode_of(backend)
    while len(text) < repeat * 160_000:
        text += text
    pieces = [text[number * 160_000 :][:130_000] for number in range(repeat)]
    ms = 1e3 * best([timed(partial(own, [piece])) for piece in pieces])
    usual = partial(backend.encode_batch_fast, add_special_tokens=False)
    usual_ms = 1e3 * best([timed(partial(usual, [piece])) for piece in pieces])
    return {"name": own.name, "tokens": len(own(pieces[:1])[0]), "ms": ms, "usual_ms": usual_ms, "ratio": ms / usual_ms}


def documents(words: list[str], random_: random.Random) -> dict[str, str]:
    """Long texts of three kinds, none of which was seen before."""
    record = {"id": 0, "name": "", "tags": [""], "price": 0.0, "stock": {"warehouse": "", "count": 0}}
    records = []
    for number in range(1_300):
        name, tag, place = random_.choices(words, k=3)
        stock = {"warehouse": place, "count": random_.randrange(1000)}
        records.append(record | {"id": number, "name": name, "tags": [tag], "price": random_.random(), "stock": stock})
    start = random_.randrange(len(words))
    code = " ".join([*words[start:], *words[:start]])
    return {
        "200 kB of JSON": json.dumps(records)[:200_000],
        "100k Chinese characters": "".join(map(chr, random_.choices(range(0x4E00, 0x9000), k=100_000))),
        "400 kB of code": (code * (400_000 // len(code) + 1))[:400_000],
    }


async def read_rows(model: Path, words: list[str]) -> list[dict[str, Any]]:
    """How long the reader takes, how much CPU, and how many prompts it leaves unread: documents that are new, then new
    questions about the last of them. What waits for a processor here is unread on a machine that is busy otherwise.
    """
    tokenizer = Tokenizer.load(model)
    reader = PromptReader(tokenizer, ["m"], b"", lambda: [16], Metrics().stage_seconds)
    rows = []
    for kind in documents(words, random.Random(0)):
        spent: dict[str, list[float]] = {"document": [], "question": [], "cpu": []}
        blind = size = 0
        for number in range(2 * QUESTIONS):
            asked = "document" if number < QUESTIONS else "question"
            text = documents(words, random.Random(min(number, QUESTIONS)))[kind]
            sent = body(CHAT, [{"role": "system", "content": text}, {"role": "user", "content": f"Question {number}?"}])
            size = len(sent)
            started, cpu = time.perf_counter(), time.process_time()
            try:
                async with asyncio.timeout(DEADLINE_S):
                    blind += isinstance(await reader.read(PickRequest("POST", CHAT, {}, sent, size)), Blind)
            except TimeoutError:
                blind += 1
            spent[asked].append(time.perf_counter() - started)
            spent["cpu"].append(time.process_time() - cpu)
        ms = {f"{asked}_ms": 1e3 * sum(times) / len(times) for asked, times in spent.items()}
        rows.append({"name": kind, "bytes": size, **ms, "blind": blind})
    reader.close()
    tokenizer.close()
    return rows


def parse_row(words: list[str], size: int) -> dict[str, float]:
    chat: list[Message] = []
    while len(sent := body(CHAT, chat)) < size:
        chat += conversation(words, 2, len(chat))[1:]
    times = [timed(lambda: parse(CHAT, {}, sent)) for _ in range(200)]
    return {"bytes": len(sent), "parse_us": best(times) * 1e6}


if __name__ == "__main__":
    main()
