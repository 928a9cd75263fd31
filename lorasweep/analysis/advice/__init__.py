"""What to use and what to try next, with the warnings a reader must have."""
