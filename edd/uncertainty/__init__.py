"""Uncertainty of a prediction and where it comes from (floor 2); all measures in nats, [*B], never reduced over examples.

- `ensemble`: from the members' log-probabilities [M, *B, K].
"""

from edd.uncertainty import ensemble as ensemble
