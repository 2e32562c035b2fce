"""Prompt -> token ids, exactly as the engine will make them (vLLM 0.32 is the reference).

In: a `TokenSource` of one request. Out: its token ids, or `Untokenised` with the reason: such a request is routed by
load. `Tokenizer` does it here, with the model's tokenizer.json and chat template; `RemoteTokenizer` asks an engine,
for models without these files; `compare` tells whether the two agree. Called by the picker; the simulator uses
`Tokenizer` too.
"""

from multipick_epp.tokens.outcome import Untokenised
from multipick_epp.tokens.parts import ALL as ALL_PARTS
from multipick_epp.tokens.parts import Part, touches
from multipick_epp.tokens.remote import RemoteTokenizer
from multipick_epp.tokens.settings import EngineSettings
from multipick_epp.tokens.tokenizer import Tokenizer
from multipick_epp.tokens.verify import Verdict, compare

__all__ = [
    "ALL_PARTS",
    "EngineSettings",
    "Part",
    "RemoteTokenizer",
    "Tokenizer",
    "Untokenised",
    "Verdict",
    "compare",
    "touches",
]
