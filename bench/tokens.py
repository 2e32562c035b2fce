"""What parsing and tokenising a request cost: cold, seen before, and with a new last message.

    python bench/tokens.py [--json FILE] [--model FOLDER]

Prints one table. The ratio to the cold time does not depend on the machine; the bar is 5% for the 32k-token chat whose
last message is new.
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
PATH = "/v1/chat/completions"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write all figures there")
    parser.add_argument("--model", type=Path, default=ROOT / "tests/fixtures/tiny-model", help="a tokenizer's folder")
    parser.add_argument("--repeat", type=int, default=7)
    arguments = parser.parse_args()
    words = corpus()
    rows = [chat_row(arguments.model, words, size, arguments.repeat) for size in (8_000, 32_000)]
    parses = [parse_row(words, size) for size in (1_000, 8_000, 64_000)]
    print(
        f"{'chat tokens':>12} {'cold ms':>9} {'seen ms':>9} {'new last ms':>12} {'seen/cold':>10} {'new last/cold':>14}"
    )
    for row in rows:
        print(
            f"{row['tokens']:>12,} {row['cold_ms']:>9.2f} {row['seen_ms']:>9.3f} {row['new_last_ms']:>12.3f}"
            f" {row['seen_ratio']:>10.1%} {row['new_last_ratio']:>14.1%}"
        )
    print(f"\n{'body bytes':>12} {'parse us':>9}")
    for row in parses:
        print(f"{row['bytes']:>12,} {row['parse_us']:>9.1f}")
    met = rows[-1]["new_last_ratio"] <= BAR
    print(f"\nbar: new last message of a 32k-token chat <= {BAR:.0%} of cold: {'met' if met else 'MISSED'}")
    if arguments.json:
        machine = {
            "cpu": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
        }
        figures = {"machine": machine, "chats": rows, "parse": parses, "bar": BAR, "met": met}
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


def corpus() -> list[str]:
    """The words of this project's own sources: English and code."""
    files = [*sorted((ROOT / "epp").rglob("*.py")), ROOT / "README.md"]
    return " ".join(file.read_text() for file in files).split(" ")


def messages(words: list[str], count: int, seed: int) -> list[dict[str, str]]:
    """A system prompt and turns of about 250 tokens each, nothing of which occurs with another seed."""
    random_ = random.Random(seed)
    roles = ["system", *(("user", "assistant")[index % 2] for index in range(count - 1))]
    chat = []
    for role in roles:
        start = random_.randrange(len(words) - 120)
        chat.append({"role": role, "content": f"{random_.random()} " + " ".join(words[start : start + 120])})
    return chat


def source(chat: list[dict[str, str]]) -> TokenSource:
    prompt = parse(PATH, {}, json.dumps({"model": "m", "messages": chat}).encode())
    assert isinstance(prompt, Prompt)
    return prompt.source


def timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def chat_row(model: Path, words: list[str], tokens: int, repeat: int) -> dict[str, float]:
    """The best of `repeat` runs of each kind: what the work takes when nothing else wants the processor."""
    tokenizer = Tokenizer.load(model)
    cold, seen, new_last = [], [], []
    length = 0
    for seed in range(repeat):
        chat = messages(words, tokens // 250, seed)
        while (length := count(tokenizer, chat)) < tokens:
            chat += messages(words, 2, len(chat) + 1_000 * seed)[1:]
        tokenizer.close()
        tokenizer = Tokenizer.load(model)
        first, longer = source(chat), source([*chat, *messages(words, 2, 999 + 1_000 * seed)[1:]])
        cold.append(encode_s(tokenizer, first))
        seen.append(encode_s(tokenizer, first))
        new_last.append(encode_s(tokenizer, longer))
    tokenizer.close()
    cold_ms, seen_ms, new_last_ms = (min(times) * 1e3 for times in (cold, seen, new_last))
    return {
        "tokens": length,
        "cold_ms": cold_ms,
        "seen_ms": seen_ms,
        "new_last_ms": new_last_ms,
        "seen_ratio": seen_ms / cold_ms,
        "new_last_ratio": new_last_ms / cold_ms,
    }


def encode_s(tokenizer: Tokenizer, source: TokenSource) -> float:
    return timed(lambda: tokenizer.encode_now(source))


def count(tokenizer: Tokenizer, chat: list[dict[str, str]]) -> int:
    ids = tokenizer.encode_now(source(chat))
    assert not isinstance(ids, Untokenised)
    return len(ids)


def parse_row(words: list[str], size: int) -> dict[str, float]:
    chat: list[dict[str, str]] = []
    body = b""
    while len(body) < size:
        chat += messages(words, 2, len(chat))[1:]
        body = json.dumps({"model": "m", "messages": chat, "stream": True, "max_tokens": 100}).encode()
    times = [timed(lambda: parse(PATH, {}, body)) for _ in range(200)]
    return {"bytes": len(body), "parse_us": min(times) * 1e6}


if __name__ == "__main__":
    main()
