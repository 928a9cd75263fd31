"""Training data, from any source to deterministic batches."""
