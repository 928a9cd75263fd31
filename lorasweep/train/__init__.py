"""Training: the packed and the DeepSpeed engine, their slots, optimizers and checkpoints."""
