"""The embedded testbed: a small Llama, and corpora and tasks about an invented world.

A sweep on it needs no hub and no network, yet learning and forgetting are real. The base knows a
few thousand invented facts (the source domain). Finetuning teaches it a target domain, word
problems in GSM8K's format or small functions in HumanEval's, and it forgets some of those facts.

Importing this package touches neither torch nor the disk. ``python -m lorasweep.testbed`` remakes
everything below ``ASSETS``.
"""

from pathlib import Path
from typing import Final

ASSETS: Final = Path(__file__).parent / "assets"
"""All files that the testbed ships."""

MODEL: Final = ASSETS / "model"
"""The base: an ordinary Hugging Face folder with its tokenizer."""

DATA: Final = ASSETS / "data" / "ift-train.jsonl"
"""The instruction set: columns ``prompt`` and ``response``."""

HELDOUT: Final = ASSETS / "data" / "ift-heldout.jsonl"
"""Held-out instructions, which no training file contains."""

DOCUMENTS: Final = ASSETS / "data" / "cpt-train.jsonl"
"""The continued-pretraining set: column ``text``."""

CODE_DATA: Final = ASSETS / "data" / "code-ift-train.jsonl"
"""The code domain's instruction set: columns ``prompt`` and ``response``."""

CODE_HELDOUT: Final = ASSETS / "data" / "code-ift-heldout.jsonl"
"""Held-out functions, which no other file contains."""

CODE_DOCUMENTS: Final = ASSETS / "data" / "code-cpt-train.jsonl"
"""The code domain's continued-pretraining set: column ``text``, pages of functions."""

TASKS: Final = ASSETS / "tasks"
"""Folder of task files; data paths in them are relative to it."""
