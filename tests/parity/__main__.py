"""`make parity`: prints family x kind, and writes the recorded ids that `make test` holds the picker to.

python -m tests.parity [FAMILY...] [--texts N] [--record]
"""

import argparse
import json
import sys
from datetime import datetime
from typing import Any

from .cases import cases, fuzz, truncated
from .compare import Row, ask, compare, compare_texts, load, table
from .engine import serving
from .models import CACHE, FAMILIES, make
from .recorded import FOLDER, digest, file_of
from .remote import compare_remote


def main() -> int:
    """1 where any request differs."""
    options = _options()
    differ = 0
    for family in FAMILIES:
        if options.families and family.name not in options.families:
            continue
        folder = make(family, CACHE / "parity")
        tokenizer = load(folder)
        print(f"{family.name}: {dict(tokenizer.paths)}", flush=True)
        with serving(folder, family.tool_parser) as address:
            all_cases = [*cases(), *truncated()]
            rows: dict[str, Row] = dict(compare(tokenizer, address, all_cases))
            rows["random texts"] = compare_texts(tokenizer, address, fuzz(options.texts, seed=1))
            rows |= compare_remote(address, all_cases)
            if options.record:
                _record(family.name, address)
        differ += table(family.name, rows, lambda line: print(line, flush=True))
        tokenizer.close()
    return 1 if differ else 0


def _record(family: str, address: str) -> None:
    """What the engine made of each case, as digests of its ids; null where it refused."""
    FOLDER.mkdir(exist_ok=True)
    answers, cut = ([digest(ask(address, case)) for case in each] for each in (cases(), truncated()))
    day = datetime.now().strftime("%Y-%m-%d")  # some models are told it
    file_of(family).write_text(json.dumps({"day": day, "answers": answers, "cut": cut}, indent=0) + "\n")


def _options() -> Any:
    parser = argparse.ArgumentParser(prog="parity", description=__doc__)
    parser.add_argument("families", nargs="*", metavar="FAMILY", help="all, by default")
    parser.add_argument("--texts", type=int, default=5000, help="random texts a family")
    parser.add_argument("--record", action="store_true", help="write what `make test` compares with")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
