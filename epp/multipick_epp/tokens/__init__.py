"""Prompt -> token ids, exactly as the engine makes them: `tokenizers` and the model's chat template, in this process.

In: a `TokenSource` of `requests.prompt`. Out: token ids, or `Untokenised` with the reason. Called by the picker and by
the simulated engine.
"""
