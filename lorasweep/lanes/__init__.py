"""Lanes and jobs that train trials, and the broker between them and Ray Tune."""
