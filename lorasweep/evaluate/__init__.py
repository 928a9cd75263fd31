"""Evaluation of one trial: what it learned and what it forgot."""
