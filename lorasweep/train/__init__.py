"""Training, of one trial or of many on one base, from batch to checkpoint."""
