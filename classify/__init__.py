"""Activations -> heads -> a run folder and one stacked model."""
