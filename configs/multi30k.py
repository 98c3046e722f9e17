"""Multi30k English to German: an ensemble of Transformers, its students SEnD, SEnD2 and PD-SEnD2, and what their uncertainty detects.

Reproduces: the rows of table 10 of Ryabinin, Malinin & Gales 2021 (permuted sources, German, French, transcribed speech) at the size of
Multi30k, with BLEU, token NLL, ECE and rejection. The default is a small preset for two CPU cores: three members of width 128, few epochs.
`accelerator` has five members of width 256 and 30 epochs and aims at 30 BLEU for one of them: not run. `wmt17` is Transformer-big on
WMT'17 by its TFDS name, for a cluster: not run; other than the paper it tests on newstest2017 and distils on references alone, without
the ensemble's translations. Students begin from a member, at half its learning rate. `smoothed` trains the
teachers with label smoothing 0.1.
Argument: comma-separated, any of accelerator, wmt17, smoothed, smoke.
Needs: multi30k/SPLIT.LANGUAGE and librispeech_text/test-clean.tsv in the data directory; the packages of edd[sequences].
Command: python launch/run.py --config configs/multi30k.py --workdir runs/multi30k --data_dir DIR
"""

from ml_collections import ConfigDict

PAPER = {  # AUROC in percent; a single value is by the total uncertainty
    "permuted": {"Single": (80.7,), "SEnD": (79.5,), "PD-SEnD2": (78.3, 96.9, 96.9, 97.1), "Ensemble": (83.7, 97.2, 97.4, 97.4)},
    "speech": {"Single": (73.7,), "SEnD": (75.9,), "PD-SEnD2": (77.0, 76.3, 80.4, 78.5), "Ensemble": (67.8, 74.4, 74.0, 73.7)},
    "german": {"Single": (32.8,), "SEnD": (35.4,), "PD-SEnD2": (38.3, 71.4, 67.6, 70.9), "Ensemble": (39.5, 76.3, 80.2, 82.4)},
    "french": {"Single": (27.1,), "SEnD": (15.6,), "PD-SEnD2": (15.9, 63.8, 51.9, 60.1), "Ensemble": (25.0, 63.6, 69.9, 73.6)},
}
MEASURES = ("total", "mutual_information", "expected_pairwise_kl", "reverse_mutual_information")
PRESETS = {  # model, members, teachers' and students' epochs, batch, learning rate, warm-up epochs
    "": ({"size": "tiny", "dropout": 0.1, "attention_dropout": 0.0, "relu_dropout": 0.0}, 3, 3.0, 3.0, 64, 2e-3, 0.5),
    "accelerator": ({"size": "small", "dropout": 0.3}, 5, 30.0, 20.0, 128, 1e-3, 4.0),
    "wmt17": ({"size": "big", "dropout": 0.1}, 10, 17.0, 2.0, 512, 5e-4, 0.35),
}
STUDENT_DROPOUT = {"": 0.0, "accelerator": 0.3, "wmt17": 0.2}  # short of training, small students only lose by it
OPTIMIZERS = {
    "": {"schedule": "cosine", "clip_norm": 1.0},
    "wmt17": {"schedule": "inverse_sqrt", "clip_norm": 10.0, "options": {"b2": 0.98, "weight_decay": 1e-4, "decay_on": "all"}},
}
WMT = {
    "folder": "",
    "tfds": "wmt17_translate/de-en",
    "test_split": "test",
    "foreign": {"german": "de"},
    "vocab_size": 40000,
    "source_length": 128,
    "target_length": 128,
}


def get_config(arg: str = "") -> ConfigDict:
    given = set(arg.split(",")) - {""}
    if given - {"accelerator", "wmt17", "smoothed", "smoke"}:
        raise ValueError(f"unknown argument {arg!r}: known are accelerator, wmt17, smoothed and smoke")
    preset = "wmt17" if "wmt17" in given else "accelerator" if "accelerator" in given else ""
    small, wmt17 = preset == "", preset == "wmt17"
    model, num_members, teacher_epochs, student_epochs, batch_size, rate, warmup = PRESETS[preset]

    def training(epochs: float, rate: float, **changes) -> dict:
        optimizer = {"name": "adam", "learning_rate": rate, "warmup_epochs": warmup, **OPTIMIZERS["wmt17" if wmt17 else ""]}
        return {
            "model": {"name": "transformer", "options": {**model, **changes}},
            "optimizer": optimizer,
            "epochs": epochs,
            "batch_size": batch_size,
            "checkpoint_every": 200,
        }

    def student(method: str, epochs: float = student_epochs) -> dict:
        return {
            "method": method,
            "training": training(epochs, rate / 2, dropout=STUDENT_DROPOUT[preset]),
            "options": {"chunk_size": 1} if wmt17 else {},  # all members' logits of a batch would be 105 GB
            "targets": "online",
            "start": "member",
        }

    students = {"SEnD": student("send"), "PD-SEnD2": student("pd_send2")}
    students["SEnD2"] = student("send2", 1.0 if small else student_epochs)  # it falls apart, at three epochs too
    if "smoke" in given:  # within CI's half minute
        students = {"PD-SEnD2": students["PD-SEnD2"]}
    multi30k = {
        "folder": "multi30k",
        "foreign": {"german": "de"} if "smoke" in given else {"german": "de", "french": "fr"},
        "vocab_size": 2000 if small else 8000,
        "source_length": 24 if small else 64,
        "target_length": 24 if small else 64,
        "num_test": 200 if small else 0,
    }
    corpus = {"speech": "librispeech_text/test-clean.tsv", **(WMT if wmt17 else multi30k)}
    reference = {label: {row: dict(zip(MEASURES, values)) for row, values in rows.items()} for label, rows in PAPER.items()}
    return ConfigDict(
        {
            "experiment": "translation",
            "name": "wmt17" if wmt17 else "multi30k",
            "seed": 0,
            "smoke": "smoke" in given,
            "corpus": corpus,
            "ensemble": {
                "num_members": num_members,
                "training": training(teacher_epochs, rate),
                "smoothing": 0.1 if given & {"smoothed", "wmt17"} else 0.0,
            },
            "students": students,
            "average": "sentences" if small else "tokens",
            "chunk_size": 1 if wmt17 else None,  # whole logits of all hypotheses would be tens of GB
            "beam": 5,
            "reference": reference,
        }
    ).lock()
