"""Completions of prompts, sampled for all copies of a model at once."""
