"""Spirals with 3, 6, 10 or 20 arms: where EnD2 breaks down with the number of classes and the proxy does not.

Reproduces: tables 5 and 6 and figures 4 and 5 of the proxy paper (its appendix): error in percent and median precision.
One run is one arm count and one seed; merge them with launch/report.py. The paper gives neither network, nor number of
members, points or noise: 4 x 64 ReLU, 10 members, 1,000 training points per arm and noise 0.2 / 0.1 / 0.05 / 0.025
are inferred. Teachers train for 300 epochs and at least 7,000 steps, students for 94,000 steps: 600 epochs of 20 arms, more of
fewer. Inputs are divided by 100; `raw` leaves them as they are.

Argument: comma-separated, any of arms=3|6|10|20, seed=N, raw, layer_norm, stability, smoke. Raw inputs clip the concentration in
EnD2 and in the forward KL, whose true gradients grow like exp(z), beyond float32 at the first step; `stability` trains 50 seeds
of each loss for 300 steps and counts what is not finite.
Command: python launch/run.py --config configs/spirals.py:arms=10,seed=0 --workdir runs/spirals/arms10-seed0
"""

from ml_collections import ConfigDict

NOISE = {3: 0.2, 6: 0.1, 10: 0.05, 20: 0.025}
PAPER = {  # arms -> row -> table 5 (error) and table 6 (median precision)
    3: {"Single": (0.0148, None), "EnD2": (0.0198, 278.7), "proxy_reverse": (0.0122, 4413.5), "Ensemble": (0.011, 14350.7)},
    6: {"Single": (0.0193, None), "EnD2": (0.0238, 13.6), "proxy_reverse": (0.0157, 2791.2), "Ensemble": (0.016, 10275.9)},
    10: {"Single": (0.0099, None), "EnD2": (0.0492, 11.75), "proxy_reverse": (0.0061, 2691.5), "Ensemble": (0.005, 8859.8)},
    20: {"Single": (0.0075, None), "EnD2": (None, None), "proxy_reverse": (0.0052, 3985.2), "Ensemble": (0.005, 6049.4)},
}


TEACHER_STEPS, STUDENT_STEPS = {3: 7_000, 6: 7_000, 10: 11_700, 20: 23_400}, 94_000


def training(steps: int, learning_rate: float, batch_size: int, layer_norm: bool = False) -> dict:
    return {
        "model": {"name": "mlp", "options": {"widths": [64, 64, 64, 64], "layer_norm": layer_norm}},
        "optimizer": {"name": "adam", "learning_rate": learning_rate, "schedule": "cosine"},
        "epochs": float(steps),  # more than the steps that follow
        "max_steps": steps,
        "batch_size": batch_size,
    }


def get_config(arg: str = "") -> ConfigDict:
    given = dict(part.partition("=")[::2] for part in arg.split(",") if part)
    unknown = set(given) - {"arms", "seed", "raw", "layer_norm", "stability", "smoke"}
    if unknown:
        raise ValueError(f"unknown argument {sorted(unknown)}: known are arms=N, seed=N, raw, layer_norm, stability, smoke")
    numbers = {name: given.get(name, default) for name, default in (("arms", "3"), ("seed", "0"))}
    if not all(number.isdigit() for number in numbers.values()):
        raise ValueError(f"arms and seed must be whole numbers, got {numbers}")
    arms, seed = int(numbers["arms"]), int(numbers["seed"])
    if arms not in NOISE:
        raise ValueError(f"arms must be one of {sorted(NOISE)}, got {arms}")
    raw, layer_norm = "raw" in given, "layer_norm" in given
    source = {"arms": arms, "noise": NOISE[arms], "scale": 1.0 if raw else 100.0, "points": 1000, "seed": seed}
    ring = {**source, "noise": 1.0}  # an absolute standard deviation of its radius, in the spirals' own unit
    source["test_points"] = 200 if "stability" in given else 4000
    clip = {"max_concentration": 1e8} if raw else {}
    stability = "stability" in given

    def student(method: str, **options) -> dict:
        steps = 300 if stability else STUDENT_STEPS
        return {
            "method": method,
            "training": training(steps, 3e-3, 128, layer_norm),
            "options": options,
            "seeds": 50 if stability else 1,
        }

    config = ConfigDict(
        {
            "name": "spirals",
            "seed": seed,
            "smoke": "smoke" in given,
            "data": {"name": "spirals", "options": source, "ood": {"spirals_ring": ring}},
            "ensemble": {"num_members": 10, "training": training(600 if stability else TEACHER_STEPS[arms], 1e-3, 256)},
            "students": {
                "EnD2": student("end2", target_smoothing=1e-4, **clip),
                "proxy_reverse": student("proxy"),
                **({"proxy_forward": student("forward_proxy", **clip)} if stability else {}),
            },
            "evaluation": {
                "num_resamples": 0,  # the spread is over seeds
                "batch_size": 4000,
                "heat_map": 0.0 if stability else 500.0 if raw else 5.0,
                "reference": {
                    row: {
                        **({"error": error} if error is not None else {}),
                        **({"precision.test": precision} if precision is not None else {}),
                    }
                    for row, (error, precision) in PAPER[arms].items()
                },
            },
        },
        allow_dotted_keys=True,  # "precision.test" names a metric of one set
    )
    return config.lock()
