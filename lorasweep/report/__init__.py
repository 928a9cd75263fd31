"""Findings in words and figures; imports neither torch nor ray."""
