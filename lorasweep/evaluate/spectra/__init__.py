"""Spectra: the singular values of what finetuning added to the weights."""
