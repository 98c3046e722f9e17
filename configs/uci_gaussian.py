"""Gaussian distillation of 50 networks on UCI regression: the deep latent factor student against Hydra, BatchEnsemble and others.

Reproduces: tables 2 to 4 of arXiv 2510.19290 (RMSE, NLL, CRPS, coverage, parameters), where the paper leaves learning rates and
lengths open. Five of the twenty published splits by default. Expected: the DLF student nearest to its teachers.
Argument: comma-separated, any of all_splits, splits=A-B, sets=boston+energy, two_layers (the paper's text instead of its parameter
counts), design=new|train|mixup_new|mixup_train (the points the students see; train as the paper's tables), smoke.
Needs: a folder with uci/SET/data.csv and test_idx.npy (--data_dir or TFDS_DATA_DIR).
Teachers train for 40 epochs, the custom on these splits; students for 6,000 steps. About three minutes for a set and split on one core.
Command: python launch/run.py --config configs/uci_gaussian.py --workdir runs/uci --data_dir DIR
"""

from ml_collections import ConfigDict

SETS = ("boston", "concrete", "energy", "wine", "power", "kin8nm")
PAPER = {  # row -> metric -> numbers in the order of SETS
    "Teachers": {
        "rmse": (2.5786, 5.6191, 0.5692, 0.5497, 4.2197, 0.0794),
        "nll": (2.3850, 3.1134, 0.8533, 0.7980, 2.8586, -1.1109),
        "crps": (1.4425, 2.9926, 0.3137, 0.2962, 2.3360, 0.0443),
        "coverage": (0.9608, 0.9515, 1.0, 0.9750, 0.9697, 0.9610),
    },
    "small ensemble": {
        "rmse": (2.7280, 5.6952, 0.6367, 0.6002, 4.2430, 0.0865),
        "nll": (2.4150, 3.1672, 0.9829, 0.8861, 2.8622, -1.032),
        "crps": (1.5233, 2.9953, 0.3461, 0.3307, 2.3392, 0.0475),
        "coverage": (0.9408, 0.9431, 0.9921, 0.9569, 0.9669, 0.9649),
    },
    "Hydra": {
        "rmse": (2.8346, 6.0558, 0.6549, 0.5689, 4.2284, 0.0932),
        "nll": (2.4843, 3.2586, 0.9914, 0.8322, 2.8604, -0.9434),
        "crps": (1.6041, 3.3084, 0.3622, 0.3075, 2.3405, 0.0518),
        "coverage": (0.8995, 0.9097, 0.9948, 0.9594, 0.9782, 0.9407),
    },
    "BatchEnsemble": {
        "rmse": (2.8375, 5.9777, 0.6661, 0.556, 4.2367, 0.0962),
        "nll": (2.4892, 3.2241, 0.9879, 0.8065, 2.8628, -0.9115),
        "crps": (1.6158, 3.2320, 0.3617, 0.3020, 2.3483, 0.0532),
        "coverage": (0.9093, 0.9282, 0.9922, 0.9612, 0.9778, 0.9080),
    },
    "DLF": {
        "rmse": (2.6687, 5.6047, 0.5659, 0.5506, 4.2211, 0.0825),
        "nll": (2.4346, 3.1584, 0.8525, 0.8230, 2.8591, -1.0754),
        "crps": (1.4317, 3.0622, 0.3163, 0.2980, 2.3364, 0.0458),
        "coverage": (0.9240, 0.9291, 1.0, 0.9681, 0.9711, 0.9761),
    },
}
NUM_MEMBERS, TEACHER_EPOCHS, TEACHER_STEPS, STUDENT_STEPS = 50, 40, 4_000, 6_000


def training(steps: int, epochs: float, widths: list[int], batch_size: int, name: str = "mlp", **options) -> dict:
    return {
        "model": {"name": name, "options": {"widths": widths, **options}},
        "optimizer": {"name": "adam", "learning_rate": 1e-2, "schedule": "cosine"},
        "epochs": float(epochs),
        "max_steps": steps,
        "batch_size": batch_size,
    }


def get_config(arg: str = "") -> ConfigDict:
    given = dict(part.partition("=")[::2] for part in arg.split(",") if part)
    unknown = set(given) - {"all_splits", "splits", "sets", "two_layers", "design", "smoke"}
    if unknown:
        raise ValueError(f"unknown argument {sorted(unknown)}: known are all_splits, splits=A-B, sets=A+B, two_layers, design=D, smoke")
    first, _, last = given.get("splits", "0-19" if "all_splits" in given else "0-4").partition("-")
    if not first.isdigit() or not (last or first).isdigit():
        raise ValueError(f"splits must be a number or a range like 0-4, got {given['splits']!r}")
    sets = given["sets"].split("+") if "sets" in given else list(SETS)

    def student(method: str, model: str = "mlp", model_options: dict | None = None, **options) -> dict:
        program = training(STUDENT_STEPS, STUDENT_STEPS, [50], 64, model, **(model_options or {}))
        return {"method": method, "training": program, "options": options}

    latent = ("batch_ensemble_mlp", {"factor_init": "ones"})
    config = ConfigDict(
        {
            "experiment": "regression",
            "name": "uci",
            "smoke": "smoke" in given,
            "seed": 0,
            "data": {"sets": sets, "splits": list(range(int(first), int(last or first) + 1)), "design": given.get("design", "train")},
            "ensemble": {
                "num_members": NUM_MEMBERS,
                "training": training(TEACHER_STEPS, TEACHER_EPOCHS, [100, 100] if "two_layers" in given else [100], 32),
            },
            "baselines": {"small ensemble": {"num_members": 4, "training": training(TEACHER_STEPS, TEACHER_EPOCHS, [50], 32)}},
            "students": {
                "Gaussian": student("gaussian_moments"),
                "Hydra": student("hydra"),
                "BatchEnsemble": student("batch_ensemble", "batch_ensemble_mlp"),
                "LBE (mask)": student("batch_ensemble", *latent, averaging="mask"),
                "LBE (factors)": student("batch_ensemble", *latent, averaging="factors"),
                "DLF": student("dlf", latent_dim=10),
                "DLF (noise)": student("dlf", latent_dim=10, include_noise=True),
                "DLF (minibatch)": student("dlf", latent_dim=10, e_step="minibatch"),
            },
            "reference": {
                row: {data: {metric: values[i] for metric, values in metrics.items()} for i, data in enumerate(SETS)}
                for row, metrics in PAPER.items()
            },
        }
    )
    return config.lock()
