"""Metrics of predictions and of uncertainties: numpy or JAX arrays in, Python floats out.

| module | arguments | metrics |
|---|---|---|
| `classification` | probs or log_probs [N, K], labels [N] | `accuracy`, `nll`, `brier_score` |
| `calibration` | probs [N, K], labels [N] | `expected_`, `maximum_`, `root_mean_square_`, `adaptive_`, `classwise_` |
|               |                          | `calibration_error`, `confidence_gap`, `reliability_curve`, `fit_temperature` |
| `detection` | scores [N], is_positive [N] | `auroc`, `aupr`, `fpr_at_tpr`, `roc_curve` |
| `rejection` | uncertainty [N], errors [N] in [0, 1] | `aurc`, `e_aurc`, `augrc`, `prediction_rejection_ratio`, |
|             |                                           | `risk_coverage_curve`, `rejection_curve`, `uncertainty_quantile_curve` |
| `quantiles` | uncertainty [N], log_probs [N, K], labels [N] | `prediction_curves`, `curve_area`, `neg_cov` |
| `regression` | means, variances [S, N], targets [N] | `rmse`, `gaussian_mixture_nll`, `gaussian_mixture_crps`, `ensemble_crps`, |
|              |                                        | `interval_coverage`, `gaussian_mixture_quantile` |
| `sequence` | texts, texts | `word_error_rate`, `bleu`, of each sentence too, `rejection_errors` |
| `fidelity` | ensemble [N], student [N] | `rank_correlation`, `mean_error`, `mean_absolute_error`, |
|            |                           | `ratio_of_means`, `mean_kl`, `agreement`, `summary` |
| `softness` | probs [N, K], labels [N] | `equivalent_smoothing` |
| `projection` | templates [3, d], activations [N, d] | `template_plane`, `project` |
| `logit_information` | draws [L, N] | `example_information` |
| `bootstrap` | any of the scalars above | `interval`, `paired_difference`, `draw`, `replicates` |
| `accumulate` | batches, inside jit | mergeable sums for accuracy, NLL, Brier score, calibration errors, means |

One set of rules for all of them:

- computed on the host in float64 (`accumulate` is the exception: it runs inside jit);
- fractions and nats, never percent;
- exact under ties, and independent of the order of the rows;
- malformed input (NaN, other shapes, log-probabilities for probabilities and the reverse, labels out of range) is a ValueError
  that names the argument; what well-formed input cannot define (AUROC without a positive, PRR without an error) is nan;
- every scalar but `fit_temperature`, `example_information` and those of `quantiles` takes `counts`, how many times each row counts:
  a mask or frequency weight [N], or [R, N] for R resamples at once.
"""

from edd.metrics import (
    accumulate,
    bootstrap,
    calibration,
    classification,
    detection,
    fidelity,
    logit_information,
    projection,
    quantiles,
    regression,
    rejection,
    sequence,
    softness,
)

__all__ = [
    "accumulate",
    "bootstrap",
    "calibration",
    "classification",
    "detection",
    "fidelity",
    "logit_information",
    "projection",
    "quantiles",
    "regression",
    "rejection",
    "sequence",
    "softness",
]
