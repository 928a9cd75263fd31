"""An embedded testbed: a small Llama, and corpora and tasks of a made-up world.

A sweep on it needs no hub and no network, yet measures something true: the base model knows a few
thousand invented facts (the source domain), and finetuning teaches it a target domain at the price
of some of those facts: word problems in the GSM8K format, or small functions in HumanEval's.

Importing this package touches neither torch nor the disk. ``python -m lorasweep.testbed`` remakes
everything below ``ASSETS``.
"""

from pathlib import Path
from typing import Final

ASSETS: Final = Path(__file__).parent / "assets"
"""Everything the testbed ships."""

MODEL: Final = ASSETS / "model"
"""The base: an ordinary Hugging Face folder with its tokenizer."""

DATA: Final = ASSETS / "data" / "ift-train.jsonl"
"""The instruction set: columns ``prompt`` and ``response``."""

HELDOUT: Final = ASSETS / "data" / "ift-heldout.jsonl"
"""Instructions of the same kind that no training file contains."""

DOCUMENTS: Final = ASSETS / "data" / "cpt-train.jsonl"
"""The continued-pretraining set: column ``text``."""

CODE_DATA: Final = ASSETS / "data" / "code-ift-train.jsonl"
"""The code domain's instruction set: columns ``prompt`` and ``response``."""

CODE_HELDOUT: Final = ASSETS / "data" / "code-ift-heldout.jsonl"
"""Functions of the same kind that no other file contains."""

CODE_DOCUMENTS: Final = ASSETS / "data" / "code-cpt-train.jsonl"
"""The code domain's continued-pretraining set: column ``text``, pages of functions."""

TASKS: Final = ASSETS / "tasks"
"""Folder of task files; each names its data relative to itself."""
