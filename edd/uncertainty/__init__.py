"""Uncertainty of a prediction and where it comes from (floor 2); all measures in nats, [*B], never reduced over examples.

- `ensemble`: from the members' log-probabilities [M, *B, K].
- `dirichlet`: the same five names from a concentration [*B, K].
- `hierarchy`: of an ensemble of ensembles [G, M, *B, K], between sub-ensembles and within them; members that count unequally.
- `sequence`: of tokens and whole hypotheses, from members or from an autoregressive Prior Network; over an n-best.
"""

from edd.uncertainty import dirichlet as dirichlet
from edd.uncertainty import ensemble as ensemble
from edd.uncertainty import hierarchy as hierarchy
from edd.uncertainty import sequence as sequence
