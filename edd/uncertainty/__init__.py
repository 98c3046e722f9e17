"""Uncertainty of a prediction and where it comes from (floor 2); all measures in nats, [*B], never reduced over examples.

- `ensemble`: from the members' log-probabilities [M, *B, K].
- `dirichlet`: the same five names from a concentration [*B, K].
"""

from edd.uncertainty import dirichlet as dirichlet
from edd.uncertainty import ensemble as ensemble
