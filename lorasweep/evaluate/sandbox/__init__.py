"""A sandbox for generated programs."""
