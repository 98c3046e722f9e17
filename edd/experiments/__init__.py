"""Whole experiments: `run` a config, or `distill` an ensemble that exists as arrays, whatever framework made it."""

from edd.experiments.arrays import Student, distill, load_student
from edd.experiments.launch import run

__all__ = ["Student", "distill", "load_student", "run"]
