"""Compare many trials; imports neither torch nor ray."""
