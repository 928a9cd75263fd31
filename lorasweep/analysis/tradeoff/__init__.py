"""What learning costs: fronts, hypervolume, methods at equal scores, curves, spectra."""
