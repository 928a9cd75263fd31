"""Where programs that a model wrote run, and what they cannot do there."""
