"""Which hyperparameters matter: importance, interactions, divergence, and the best rate."""
