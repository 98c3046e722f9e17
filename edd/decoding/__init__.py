"""Writing sequences: beam search over one model or an ensemble, token-level Bayesian model average."""
