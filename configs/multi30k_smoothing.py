"""Multi30k English to German with hard and with smoothed labels: calibration and BLEU over the temperature, tokens, PD-SEnD2 of both.

Reproduces: figure 4 and the translation rows of tables 1 and 3 of arXiv 1906.02629 at the size of Multi30k, figure 7's kind of projection
(penultimate activations of three frequent tokens), and what smoothed teachers do to PD-SEnD2 (arXiv 2105.06987). Expected: ECE falls with a
temperature above 1 for hard labels; smoothing alone calibrates and has more BLEU; hard labels have the lower NLL at every temperature.
Paper's numbers: BLEU 25.3 and 25.8, perplexity 4.67 and 4.92, ECE 0.056 (0.018 at T = 1.13) and 0.019 with smoothing 0.1.
The default is for one CPU core: two networks of width 128 for each smoothing, few epochs, students that begin from a member
at half its rate. `accelerator` has five networks of width 256, 30 epochs: not run.
Argument: comma-separated: accelerator, smoothing=A+B, seed=N, smoke.
Needs: multi30k/SPLIT.LANGUAGE in the data directory; the packages of edd[sequences].
Command: python launch/run.py --config configs/multi30k_smoothing.py --workdir runs/multi30k_smoothing --data_dir DIR
"""

from ml_collections import ConfigDict

PAPER = {
    "0 %": {"BLEU": 0.253, "perplexity": 4.67, "ECE %": 0.056, "T": 1.13, "ECE % at T": 0.018},
    "10 %": {"BLEU": 0.258, "perplexity": 4.92, "ECE %": 0.019},
}
PRESETS = {  # model, members, teachers' and students' epochs, batch, learning rate, warm-up epochs
    "": ({"size": "tiny", "dropout": 0.1, "attention_dropout": 0.0, "relu_dropout": 0.0}, 2, 2.25, 0.6, 64, 2e-3, 0.5),
    "accelerator": ({"size": "small", "dropout": 0.3}, 5, 30.0, 20.0, 128, 1e-3, 4.0),
}


def get_config(arg: str = "") -> ConfigDict:
    given = dict(part.partition("=")[::2] for part in arg.split(",") if part)
    if set(given) - {"accelerator", "smoothing", "seed", "smoke"} or not given.get("seed", "0").isdigit():
        raise ValueError(f"unknown argument {arg!r}: known are accelerator, smoothing=A+B, seed=N and smoke")
    small, smoke = "accelerator" not in given, "smoke" in given
    model, num_members, teacher_epochs, student_epochs, batch_size, rate, warmup = PRESETS["" if small else "accelerator"]

    def training(epochs: float, rate: float) -> dict:
        return {
            "model": {"name": "transformer", "options": dict(model)},
            "optimizer": {"name": "adam", "learning_rate": rate, "schedule": "cosine", "warmup_epochs": warmup, "clip_norm": 1.0},
            "epochs": epochs,
            "batch_size": batch_size,
            "checkpoint_every": 200,
        }

    student = {"method": "pd_send2", "training": training(student_epochs, rate / 2), "targets": "online", "start": "member"}
    default = [0.1] if smoke else [0.0, 0.1]  # within CI's half minute
    return ConfigDict(
        {
            "experiment": "translation_smoothing",
            "name": "multi30k_smoothing",
            "seed": int(given.get("seed", "0")),
            "smoke": smoke,
            "corpus": {
                "folder": "multi30k",
                "validation_split": "val",
                "vocab_size": 2000 if small else 8000,
                "source_length": 24 if small else 64,
                "target_length": 24 if small else 64,
            },
            "ensemble": {"num_members": num_members, "training": training(teacher_epochs, rate)},
            "students": {"PD-SEnD2": student},
            "smoothings": [float(each) for each in given["smoothing"].split("+")] if "smoothing" in given else default,
            "temperatures": [1.0, 1.5] if smoke else [0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.5, 1.75, 2.0],
            "beam_temperatures": [1.0, 1.5] if smoke else [0.7, 1.0, 1.2, 1.5, 2.0],
            "num_translated": 300 if small else 0,
            "average": "sentences" if small else "tokens",
            "beam": 5,
            "reference": PAPER,
        }
    ).lock()
