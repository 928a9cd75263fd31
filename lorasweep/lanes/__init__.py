"""Lanes: Ray Train jobs that hold one frozen base and train many trials in their slots."""
