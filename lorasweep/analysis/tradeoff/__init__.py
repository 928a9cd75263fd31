"""Learning against forgetting: fronts, hypervolume, methods at equal scores, curves, spectra."""
