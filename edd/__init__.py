"""Ensemble distribution distillation: one network that keeps an ensemble's uncertainty."""

__version__ = "0.1.0"
