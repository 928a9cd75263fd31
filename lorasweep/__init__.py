"""Sweep LoRA finetuning with Ray, and say what was learned, forgotten and what mattered."""

__version__ = "0.1.0"
