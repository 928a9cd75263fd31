"""Ray Tune driving the trials of a sweep."""
