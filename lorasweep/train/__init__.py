"""One trial's training, from loss to checkpoint."""
