"""Spectra: singular values of the update that finetuning added to each weight matrix."""
