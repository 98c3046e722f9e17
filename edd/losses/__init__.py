"""Losses of each example [*B], in nats (floor 2b): never reduced over examples, no configuration, stable in float32.

- `supervised`: cross-entropy and label smoothing, on labels;
- `distillation`: EnD (the ensemble's mean) and knowledge distillation (one teacher);
- `distribution`: EnD2, the Dirichlet negative log-likelihood of the members;
- `proxy`: the proxy-Dirichlet target of an ensemble, and reverse and forward KL to it;
- `flow_matching`: the velocity of straight lines from noise to members' logits;
- `latent_factor`: the expected complete log-likelihood (Q function) of Gaussian distillation;
- `chunked`: any of these over long sequences and large vocabularies, a few time steps at a time;
- `top_k`: targets compressed to their k largest probabilities, with a bound of the error;
- `penalties`: scalars added to a loss (maximum mean discrepancy).
"""

from edd.losses import chunked as chunked
from edd.losses import distillation as distillation
from edd.losses import distribution as distribution
from edd.losses import flow_matching as flow_matching
from edd.losses import latent_factor as latent_factor
from edd.losses import penalties as penalties
from edd.losses import proxy as proxy
from edd.losses import supervised as supervised
from edd.losses import top_k as top_k
