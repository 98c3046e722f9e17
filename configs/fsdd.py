"""Spoken digit strings: an ensemble of attention recognisers, its students SEnD, SEnD2 and PD-SEnD2, new voices and noise as shift.

Reproduces: the method of Ryabinin, Malinin & Gales 2021 (appendices C and D) on recordings small enough for a CPU; the paper has no such
table. 3,000 recordings of six speakers are joined into strings of one to five digits; two speakers are held out. WER, token NLL, ECE,
rejection by WER, and detection of the held-out speakers and of white noise at 20, 10 and 0 dB. The default is for one CPU core: three
members of width 64; students begin from a member, at a third of its learning rate. `accelerator` has ten
members of width 128, more strings and more steps: not run.
Argument: comma-separated, any of accelerator, smoke.
Needs: fsdd/recordings/DIGIT_SPEAKER_TAKE.wav in the data directory; the packages of edd[sequences].
Command: python launch/run.py --config configs/fsdd.py --workdir runs/fsdd --data_dir DIR
"""

from ml_collections import ConfigDict

PRESETS = {  # width, layers, dropout, members, teachers' and students' steps, batch, learning rate, warm-up steps, strings
    "": (64, 2, 0.1, 3, 4000, 1500, 32, 3e-3, 50, 20_000),
    "accelerator": (128, 4, 0.2, 10, 20_000, 8_000, 128, 1e-3, 1000, 200_000),
}


def get_config(arg: str = "") -> ConfigDict:
    given = set(arg.split(",")) - {""}
    if given - {"accelerator", "smoke"}:
        raise ValueError(f"unknown argument {arg!r}: known are accelerator and smoke")
    preset = PRESETS["accelerator" if "accelerator" in given else ""]
    width, layers, dropout, num_members, teacher_steps, student_steps, batch_size, rate, warmup, strings = preset

    def training(steps: int, rate: float) -> dict:
        shape = {"size": "tiny", "width": width, "num_layers": layers, "num_heads": 4, "hidden": 4 * width}
        optimizer = {"name": "adam", "learning_rate": rate, "schedule": "cosine", "clip_norm": 1.0}
        return {
            "model": {"name": "speech", "options": {**shape, "dropout": dropout, "attention_dropout": 0.0, "relu_dropout": 0.0}},
            "optimizer": {**optimizer, "warmup_epochs": warmup * batch_size / strings},
            "epochs": 1000.0,
            "max_steps": steps,
            "batch_size": batch_size,
            "checkpoint_every": 500,
        }

    def student(method: str) -> dict:
        return {"method": method, "training": training(student_steps, rate / 3), "targets": "online", "start": "member"}

    students = {"SEnD": student("send"), "SEnD2": student("send2"), "PD-SEnD2": student("pd_send2")}
    if "smoke" in given:  # within CI's half minute
        students = {"PD-SEnD2": students["PD-SEnD2"]}
    return ConfigDict(
        {
            "experiment": "speech",
            "name": "fsdd",
            "seed": 0,
            "smoke": "smoke" in given,
            "corpus": {
                "digits": "fsdd/recordings",
                "held_out": ["george", "yweweler"],  # the first and the last in the alphabet
                "strings": [1, 5],
                "speed": [0.8, 1.25],
                "noise": [] if "smoke" in given else [20, 10, 0],
                "num_train": strings,
                "num_test": 200,
                "seconds": 2.8,
                "test_seconds": 5.0,
                "target_length": 6,
            },
            "front_end": {"rate": 8000, "num_filters": 40, "window": 256, "hop": 128},
            "ensemble": {"num_members": num_members, "training": training(teacher_steps, rate)},
            "students": students,
            "average": "sentences" if preset is PRESETS[""] else "tokens",
            "beam": 5,
        }
    ).lock()
