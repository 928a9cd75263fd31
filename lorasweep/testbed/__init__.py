"""An embedded testbed: a small Llama, two corpora and four tasks of a made-up world.

A sweep on it needs no hub and no network, yet measures something true: the base model knows a few
thousand invented facts (the source domain), and finetuning on word problems (the target domain)
teaches it arithmetic in the GSM8K format at the price of some of those facts.

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

TASKS: Final = ASSETS / "tasks"
"""Folder of lm-eval task files; each names its data relative to itself."""
