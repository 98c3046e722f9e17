"""LibriSpeech: an ensemble of attention recognisers, its students SEnD, SEnD2 and PD-SEnD2; test-other, meetings and French as shift.

Reproduces: the speech rows of Ryabinin, Malinin & Gales 2021 (LibriSpeech test-clean against test-other, AMI and French) in their layout;
trained on the 100 hours of train-clean-100 with 1,000 subwords. Not run: it needs an accelerator and days; a smoke run on invented sound
shows that the program works. Other speech comes from folders of 16-bit WAV files at 16 kHz (FLAC and MP3 must be converted first) beside
a transcripts.tsv of lines "file TAB transcript"; their names follow as `ami=DIR` and `french=DIR`, relative to the data directory.
Other than the paper: 100 of 960 hours, 1,000 of 5,000 pieces, networks of this library's base size.
Argument: comma-separated, any of ami=DIR, french=DIR, smoke.
Needs: `librispeech` of TFDS, prepared in the data directory (its default config, which holds decoded sound); 48 GB of memory; the packages
of edd[sequences].
Command: python launch/run.py --config configs/librispeech.py:ami=ami,french=french --workdir runs/librispeech --data_dir DIR
"""

from ml_collections import ConfigDict

FOLDERS = ("ami", "french")


def get_config(arg: str = "") -> ConfigDict:
    given = [part.partition("=") for part in arg.split(",") if part]
    unknown = [name for name, _, value in given if name != "smoke" and not (name in FOLDERS and value)]
    if unknown:
        raise ValueError(f"unknown argument {unknown[0]!r} in {arg!r}: known are ami=DIR, french=DIR and smoke")
    smoke = any(name == "smoke" for name, *_ in given)

    def training(epochs: float) -> dict:
        return {
            "model": {"name": "speech", "options": {"size": "base", "dropout": 0.1}},
            "optimizer": {"name": "adam", "learning_rate": 1e-3, "schedule": "cosine", "warmup_epochs": 5.0, "clip_norm": 1.0},
            "epochs": epochs,
            "batch_size": 64,
            "checkpoint_every": 1000,
        }

    def student(method: str) -> dict:
        return {"method": method, "training": training(40.0), "targets": "online", "start": "member"}

    students = {"SEnD": student("send"), "SEnD2": student("send2"), "PD-SEnD2": student("pd_send2")}
    if smoke:  # within CI's half minute; configs/fsdd.py has a student of such networks
        students = {}
    return ConfigDict(
        {
            "experiment": "speech",
            "name": "librispeech",
            "seed": 0,
            "smoke": smoke,
            "corpus": {
                "digits": "",
                "tfds": "librispeech",
                "train_split": "train_clean100",
                "test_split": "test_clean",
                "shifted": {"test_other": "test_other"},
                "folders": {name: value for name, _, value in given if name in FOLDERS},
                "vocab_size": 1000,
                "seconds": 17.0,
                "test_seconds": 36.0,
                "target_length": 300,
            },
            "front_end": {"rate": 16_000, "num_filters": 80, "window": 400, "hop": 160},
            "ensemble": {"num_members": 6, "training": training(80.0)},
            "students": students,
            "chunk_size": 10,
            "beam": 20,
        }
    ).lock()
