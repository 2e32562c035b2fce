"""Asks real engines what they make of the requests in render.json, and writes their answers there.

For maintainers; the tests only read the file. Start three engines (no GPU is needed) in an environment with vLLM:

    for name in string parts chat; do vllm launch render tests/fixtures/tiny-model --served-model-name tiny \
      --chat-template tests/unit/tokens/recorded/$name.jinja --port … --max-model-len 8192 \
      --enable-auto-tool-choice --tool-call-parser hermes & done
    python tests/unit/tokens/recorded/record.py string=http://127.0.0.1:… parts=… chat=…
"""

import json
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("render.json")


def ask(address: str, path: str, body: Any) -> list[list[int]] | None:
    """The ids of each prompt of the request; None where the engine refuses it."""
    request = urllib.request.Request(
        f"{address}{path}/render", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request) as response:
            answer = json.load(response)
    except urllib.error.HTTPError as error:
        print(f"  refused: {error.read().decode()[:150]}")
        return None
    return [one["token_ids"] for one in (answer if isinstance(answer, list) else [answer])]


def main() -> None:
    engines = dict(argument.split("=", 1) for argument in sys.argv[1:])
    cases = json.loads(FILE.read_text())
    for case in cases:
        print(case["name"])
        case["ids"] = {name: ask(address, case["path"], case["body"]) for name, address in engines.items()}
    lines = ",\n".join(json.dumps(case) for case in cases)
    FILE.write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
