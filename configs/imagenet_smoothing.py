"""Inception-v4 on ImageNet, trained on hard and on smoothed labels: calibration and penultimate projections, for a cluster.

Reproduces: table 3 and figure 1 (third and fourth row) of arXiv 1906.02629. ECE 0.071, temperature scaling 0.022 at T = 1.4, smoothing 0.1
0.035; accuracy 80.9 % with and without smoothing; tench, meerkat, cleaver and toy poodle, miniature poodle, tench. As in its appendix A.3:
BatchNorm with a scale (42,679,816 parameters), batch 4096, Nesterov momentum 0.9, weight decay 8e-5 on kernels, average of the parameters
0.9999, the checkpoint chosen on 50,000 held-out training images (least loss of the averaged network); one seed, as in the paper.
Choices of ours: rate 0.1 for each 256 images of a batch (1.6) after ten epochs of warm-up, times 0.975 an epoch, 120 epochs;
Inception's views (a rectangle of 5 to 100 % of the area, mirrored, [-1, 1]); temperatures fitted on the held-out images. A photograph is
stored as a square of 342 pixels, of which the test sees the central 299 (Inception's central 87.5 %); training draws its rectangles from
that square. Images stay on disk: a host reads and decodes its part of every batch (about 1 core for 200 images a second); the first run
reads all records once for their labels. 300 steps an epoch; a batch takes 64 accelerators of 64 images each. Not run.
Argument: comma-separated: auxiliary (TensorFlow-Slim's second classifier, weight 0.4), smoothing=A (one value alone, to run a study in
parts), epochs=N, seed=N, seeds=N, smoke.
Needs: TFDS directory imagenet2012 in array_record format (--data_dir or TFDS_DATA_DIR).
Command: python launch/run.py --config configs/imagenet_smoothing.py --workdir runs/imagenet_smoothing --data_dir DIR
"""

from ml_collections import ConfigDict

TRAINING_IMAGES, HELD_OUT, BATCH = 1_281_167, 50_000, 4096
STEPS_PER_EPOCH = (TRAINING_IMAGES - HELD_OUT) // BATCH
WARMUP_EPOCHS, DECAY_PER_EPOCH = 10.0, 0.975


def get_config(arg: str = "") -> ConfigDict:
    given = dict(part.partition("=")[::2] for part in arg.split(",") if part)
    unknown = set(given) - {"auxiliary", "smoothing", "epochs", "seed", "seeds", "smoke"}
    epochs, smoothing = given.get("epochs", "120"), given.get("smoothing", "0")
    counts = given.get("seed", "0") + given.get("seeds", "1") + epochs
    if unknown or not counts.isdigit() or not smoothing.lstrip("-").replace(".", "", 1).isdigit():
        raise ValueError(f"unknown argument {arg!r}: known are auxiliary, smoothing=A, epochs=N, seed=N, seeds=N, smoke")
    smoke, epochs = "smoke" in given, float(epochs)
    size, seen = (122, 107) if smoke and "auxiliary" in given else (86, 75) if smoke else (342, 299)  # the least the network takes
    training = {
        "model": {"name": "inception_v4", "options": {"auxiliary": "auxiliary" in given}},
        "optimizer": {
            "name": "nesterov",
            "learning_rate": 0.1 * BATCH / 256,
            "schedule": "exponential",
            "warmup_epochs": WARMUP_EPOCHS,
            "weight_decay": 8e-5,
            "options": {"momentum": 0.9, "final_fraction": DECAY_PER_EPOCH ** max(epochs - WARMUP_EPOCHS, 1.0)},
        },
        "epochs": epochs,
        "batch_size": BATCH,
        "augment": f"rectangle{seen}+flip",
        "ema_decay": 0.9999,
        "keep": "best",
        "checkpoint_every": 4 * STEPS_PER_EPOCH,
    }
    images = {"stream": True, "image_size": size, "resize": size, "squash": True, "crop": seen, "standardise": "symmetric"}
    few = {"num_classes": 10} if smoke else {}
    return ConfigDict(
        {
            "experiment": "smoothing_features",
            "name": "imagenet_smoothing",
            "seed": int(given.get("seed", "0")),
            "smoke": smoke,
            "data": {
                "name": "imagenet2012",
                "options": {**images, **few},
                "test_split": "validation",
                "validation": HELD_OUT / TRAINING_IMAGES,
            },
            "ensemble": {"num_members": int(given.get("seeds", "1")), "training": training},
            "smoothings": [float(smoothing)] if "smoothing" in given else [0.1] if smoke else [0.0, 0.1],
            "triples": [[0, 1, 2]] if smoke else [[0, 299, 499], [265, 266, 0]],
            "temperatures": [0.5, 0.7, 0.85, 1.0, 1.2, 1.4, 1.7, 2.0, 2.5, 3.0],
            "batch_size": 256,
            "reference": {
                "0 %": {"accuracy %": 0.809, "ECE %": 0.071, "T": 1.4, "ECE % at T": 0.022},
                "10 %": {"accuracy %": 0.809, "ECE %": 0.035},
            },
        }
    ).lock()
