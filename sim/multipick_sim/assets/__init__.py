"""The tokenizer and chat template that a simulated pod serves unless told otherwise, in the layout of a model folder.

`make_tokenizer.py` writes them; they are committed so that nothing is trained or downloaded at run time.
"""

from pathlib import Path

MODEL_DIR = Path(__file__).parent / "model"
"""Holds `tokenizer.json` and `tokenizer_config.json`."""
