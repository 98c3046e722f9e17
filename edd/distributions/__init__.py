"""Distributions over classes and over class probabilities (floor 1), as pure functions of their parameters.

- `categorical`: functions of normalised log-probabilities [*B, K].
- `dirichlet`: functions of a concentration [*B, K], accurate in float32 from 1e-4 to 1e8 and beyond.
- `latent_factor`: the latent factor model of Gaussian distillation; `latent_factor_em`: its closed-form EM updates.
"""
