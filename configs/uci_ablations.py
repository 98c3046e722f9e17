"""Ablations of Gaussian distillation on UCI regression: one setting of the latent factor student or its teachers at a time.

Reproduces: the ablations of arXiv 2510.19290 (latent dimension, initialisation, design points, width, number of teachers) and two it
has not (student steps, teacher diversity), smaller: 30 teachers of 40 epochs, students of 3,000 steps. Expected: indifferent to the latent
dimension unless it is too small; new rows the best design points.
Argument: comma-separated: study=latent_dim|initialisation|design|width|members|steps|diversity|teachers, sets=boston+energy,
splits=A-B, smoke.
Needs: a folder with uci/SET/data.csv and test_idx.npy (--data_dir or TFDS_DATA_DIR).
One split by default. Seen on a third of one core, in minutes a set: design 4, diversity 8, initialisation 7, teachers 5, latent_dim 9.
Command: python launch/run.py --config configs/uci_ablations.py:study=design --workdir runs/uci_design --data_dir DIR
"""

from ml_collections import ConfigDict

SETS = ("boston", "concrete", "energy", "wine", "power", "kin8nm")
SMALL = ("boston", "energy", "wine")
NUM_MEMBERS, STUDENT_STEPS = 30, 3_000
TEACHERS = {"epochs": 40.0, "max_steps": 4_000, "batch_size": 32}  # longer, and their noise variances overfit
LATENT_DIMS = (1, 2, 5, 10, 20, 50)
STEPS = (300, 1_000, 3_000, 10_000)
STARTS = {
    "random": {"initialisation": "random"},
    "MMD": {"initialisation": "mmd", "init_steps": 500},
    "MMD, weight 100": {"initialisation": "mmd", "init_steps": 500, "penalty_weight": 100.0},
    "whitened": {"initialisation": "whitened"},
}
ALGORITHMS = {
    "each minibatch, as the paper": {"e_step": "minibatch", "expand": False, "inner_iterations": 1},
    "design set": {"e_step": "full", "expand": False, "inner_iterations": 1},
    "design set, expanded": {"e_step": "full", "expand": True},
}
DESIGNS = {"training rows": "train", "mixup of training rows": "mixup_train", "new rows": "new", "mixup of new rows": "mixup_new"}
CHAIN = {"name": "sgld", "learning_rate": 5e-3, "weight_decay": 2e-3, "options": {"decay_on": "all"}}
SOURCES = {
    "deep ensemble": {},
    "MC dropout": {"ensemble__source": "mc_dropout", "ensemble__training__model__options__dropout": 0.1},
    "Langevin": {
        "ensemble__source": "langevin",
        "ensemble__options": {"chains": 3, "every": 1_000},  # 10 snapshots of each, from step 11,000 on
        "ensemble__training__max_steps": 20_000,
        "ensemble__training__epochs": 20_000.0,
        "ensemble__training__optimizer": CHAIN,
    },
}


def training(widths: list[int], name: str = "mlp", **program) -> dict:
    return {
        "model": {"name": name, "options": {"widths": widths}},
        "optimizer": {"name": "adam", "learning_rate": 1e-2, "schedule": "cosine"},
        **program,
    }


def student(method: str, model: str = "mlp", **options) -> dict:
    program = {"epochs": 1e5, "max_steps": STUDENT_STEPS, "batch_size": 64}  # more epochs than steps
    return {"method": method, "training": training([50], model, **program), "options": options}


def variant(value, group: str = "", **change) -> dict:
    return {"value": value, "group": group, "change": {path.replace("__", "."): each for path, each in change.items()}}


def studies() -> dict:
    """study -> (what is swept, sets, further students, changes of the base's data, variants)."""
    option, data = "students__DLF__options__", "data__"
    every = {"Hydra": student("hydra"), "BatchEnsemble": student("batch_ensemble", "batch_ensemble_mlp")}
    widths = {f"students__{name}__training__model__options__widths": name for name in ("DLF", *every)}
    return {
        "latent_dim": ("latent dimension q", SETS, {}, {}, [variant(q, **{option + "latent_dim": q}) for q in LATENT_DIMS]),
        "initialisation": (
            "initialisation",
            SMALL,
            {},
            {},
            [
                variant(name, group, **{option + key: each for key, each in {**start, **algorithm}.items()})
                for group, algorithm in ALGORITHMS.items()
                for name, start in STARTS.items()
            ],
        ),
        "design": (
            "share of the design points",
            SMALL,
            {},
            {"teacher_fraction": 0.5},
            [
                variant(share, group, **{data + "design": design, data + "design_fraction": share})
                for group, design in DESIGNS.items()
                for share in (0.2, 0.4, 0.6, 0.8, 1.0)
            ],
        ),
        "width": ("width of the student", SMALL, every, {}, [variant(w, **dict.fromkeys(widths, [w])) for w in (10, 25, 50, 100)]),
        "members": ("number of teachers", SMALL, every, {}, [variant(m, ensemble__num_members=m) for m in (50, 40, 30, 20, 10)][::-1]),
        "steps": (
            "steps of the student",
            SMALL,
            every,
            {},
            [variant(n, **{f"students__{name}__training__max_steps": n for name in ("DLF", *every)}) for n in STEPS],
        ),
        "teachers": ("source of the teachers", SMALL, every, {}, [variant(name, **change) for name, change in SOURCES.items()]),
        "diversity": (
            "share of training rows that all teachers have in common",
            SMALL,
            every,
            {"member_fraction": 0.5, "design": "train"},
            [variant(share, **{data + "common_fraction": share}) for share in (0.0, 0.25, 0.5, 0.75, 1.0)],
        ),
    }


def get_config(arg: str = "") -> ConfigDict:
    given = dict(part.partition("=")[::2] for part in arg.split(",") if part)
    unknown = set(given) - {"study", "splits", "sets", "smoke"}
    known = studies()
    study = given.get("study", "latent_dim")
    if unknown or study not in known:
        raise ValueError(f"unknown argument {sorted(unknown) or study!r}: known are study={'|'.join(known)}, sets=A+B, splits=A-B, smoke")
    first, _, last = given.get("splits", "0").partition("-")
    if not first.isdigit() or not (last or first).isdigit():
        raise ValueError(f"splits must be a number or a range like 0-4, got {given['splits']!r}")
    swept, sets, students, data, variants = known[study]
    sets = given["sets"].split("+") if "sets" in given else list(sets)
    return ConfigDict(
        {
            "experiment": "ablation",
            "name": f"uci_{study}",
            "study": swept,
            "smoke": "smoke" in given,
            "base": {
                "seed": 0,
                "data": {"sets": sets, "splits": list(range(int(first), int(last or first) + 1)), "design": "train", **data},
                "ensemble": {"num_members": NUM_MEMBERS, "training": training([100], **TEACHERS)},
                "students": {"DLF": student("dlf", latent_dim=10), **students},
            },
            "variants": variants,
        }
    ).lock()
