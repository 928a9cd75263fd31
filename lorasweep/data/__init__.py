"""Training data: reading, tokenising and deterministic batches."""
