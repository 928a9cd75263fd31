"""What stands around a sweep: submission to a cluster."""
