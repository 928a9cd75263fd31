"""Recommendations and warnings."""
