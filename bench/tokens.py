"""What parsing and tokenising a request cost: cold, seen before, and grown by one message.

    python bench/tokens.py [--json FILE] [--model FOLDER]

Prints two tables. Ratios to the cold time depend little on the machine; the bar is 5% for the chat of 32,000 tokens
whose last message is new.
"""

import argparse
import json
import os
import platform
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from multipick_epp.requests import parse
from multipick_epp.requests.prompt import Prompt, TokenSource
from multipick_epp.tokens import Tokenizer, Untokenised

ROOT = Path(__file__).parents[1]
BAR = 0.05
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"

Message = dict[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write all figures there")
    parser.add_argument("--model", type=Path, default=ROOT / "tests/fixtures/tiny-model", help="a tokenizer's folder")
    parser.add_argument("--repeat", type=int, default=7)
    arguments = parser.parse_args()
    words = corpus()
    prompts = [(path, tokens) for path in (CHAT, TEXT) for tokens in (8_000, 32_000)]
    rows = [encode_row(arguments.model, words, path, tokens, arguments.repeat) for path, tokens in prompts]
    parses = [parse_row(words, size) for size in (1_000, 8_000, 64_000)]
    names = ("cold ms", "seen ms", "grown ms", "seen/cold", "grown/cold")
    print(f"{'prompt':>22} {'tokens':>7}" + "".join(f"{name:>11}" for name in names))
    for row in rows:
        times = f"{row['cold_ms']:>11.2f}{row['seen_ms']:>11.3f}{row['grown_ms']:>11.3f}"
        ratios = f"{row['seen_ratio']:>11.1%}{row['grown_ratio']:>11.1%}"
        print(f"{row['path']:>22} {row['tokens']:>7,}{times}{ratios}")
    print(f"\n{'body bytes':>11} {'parse us':>9}")
    for row in parses:
        print(f"{row['bytes']:>11,} {row['parse_us']:>9.1f}")
    met = rows[1]["grown_ratio"] <= BAR
    print(f"\nbar: a 32k-token chat whose last message is new <= {BAR:.0%} of cold: {'met' if met else 'MISSED'}")
    if arguments.json:
        machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
        figures = {"machine": machine, "python": platform.python_version(), "encode": rows, "parse": parses}
        arguments.json.write_text(json.dumps({**figures, "bar": BAR, "met": met}, indent=1) + "\n")


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
    return json.dumps({"model": "m"} | ({"messages": chat} if path == CHAT else {"prompt": text})).encode()


def source(path: str, chat: list[Message]) -> TokenSource:
    prompt = parse(path, {}, body(path, chat))
    assert isinstance(prompt, Prompt)
    return prompt.source


def best(times: list[float]) -> float:
    """What the work takes when nothing else wants the processor."""
    return min(times)


def timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def encode_s(tokenizer: Tokenizer, source: TokenSource) -> float:
    return timed(lambda: tokenizer.encode_now(source))


def encode_row(model: Path, words: list[str], path: str, tokens: int, repeat: int) -> dict[str, Any]:
    cold, seen, grown = [], [], []
    length = 0
    for seed in range(repeat):
        tokenizer = Tokenizer.load(model)
        chat = conversation(words, 2, 1_000 * seed)
        while (length := count(tokenizer, source(path, chat))) < tokens:
            missing = (tokens - length) // 300 + 1
            chat += conversation(words, 1 + missing, len(chat) + 1_000 * seed)[1:]
        tokenizer.close()
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


def parse_row(words: list[str], size: int) -> dict[str, float]:
    chat: list[Message] = []
    while len(sent := body(CHAT, chat)) < size:
        chat += conversation(words, 2, len(chat))[1:]
    times = [timed(lambda: parse(CHAT, {}, sent)) for _ in range(200)]
    return {"bytes": len(sent), "parse_us": best(times) * 1e6}


if __name__ == "__main__":
    main()
