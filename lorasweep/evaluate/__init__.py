"""One trial's measurement: what it learned and what it forgot."""
