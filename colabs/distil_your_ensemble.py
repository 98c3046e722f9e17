# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Distil your ensemble
#
# You have an ensemble, made in any framework. All that `edd` needs are its inputs and its members' predictions on them, as
# arrays. Out comes one network that predicts like the ensemble *and* knows what the ensemble does not know.
#
# Needs `pip install 'edd[train]'`. Ten scikit-learn networks on the 8x8 digits stand in for your ensemble here.

# %%
import os

import matplotlib.pyplot as plt
import numpy as np
from sklearn.neural_network import MLPClassifier

import edd
from edd.data import sources

SMOKE = bool(os.environ.get("EDD_SMOKE"))  # a run of seconds that only shows that the cells work
NUM_MEMBERS, MEMBER_STEPS, STUDENT_EPOCHS = (2, 3, 1) if SMOKE else (10, 60, 200)

# %% [markdown]
# ## An ensemble, from somewhere else
#
# `photos` are 8x8 patches of photographs: no digits at all, so a good uncertainty is high on them.

# %%
train, test = sources.load("digits", "train"), sources.load("digits", "test")
photos = sources.load("digits_photos", "test")


def flat(inputs):
    return inputs.reshape(len(inputs), -1)


members = [
    MLPClassifier(
        (64, 64), max_iter=MEMBER_STEPS, random_state=seed, early_stopping=True, validation_fraction=0.1, n_iter_no_change=MEMBER_STEPS
    )
    for seed in range(NUM_MEMBERS)
]
for member in members:
    member.fit(flat(train.inputs), train.labels)


def member_log_probs(inputs):
    """[M, N, K]: members first, classes last."""
    log_probs = np.stack([member.predict_log_proba(flat(inputs)) for member in members])
    return np.maximum(log_probs, -80.0).astype(np.float32)


# %% [markdown]
# ## What the ensemble knows
#
# Total uncertainty splits into *data* uncertainty (the digit itself is ambiguous) and *knowledge* uncertainty (the members
# disagree). Knowledge uncertainty is what tells photographs from digits.

# %%
ensemble = {
    name: edd.uncertainty.ensemble.measures(member_log_probs(split.inputs)) for name, split in (("digits", test), ("photos", photos))
}
for name, measures in ensemble.items():
    means = {measure: float(np.mean(values)) for measure, values in measures._asdict().items()}
    print(name, {measure: round(value, 4) for measure, value in means.items()})

# %% [markdown]
# ## Distil
#
# `proxy` fits the Dirichlet that the ensemble's members look drawn from. `end` (the mean only) and `end2` are one word away.

# %%
student = edd.experiments.distill(
    flat(train.inputs),
    member_log_probs(train.inputs),
    kind="log_probs",
    method="proxy",
    model="mlp",
    model_options={"widths": (64, 64)},
    epochs=STUDENT_EPOCHS,
    batch_size=64,
)
prediction = {"digits": student.predict(flat(test.inputs)), "photos": student.predict(flat(photos.inputs))}

# %% [markdown]
# ## What the student kept, at a tenth of the price

# %%
auroc, accuracy = edd.metrics.detection.auroc, edd.metrics.classification.accuracy
is_photo = np.concatenate([np.zeros(len(test.labels), bool), np.ones(len(photos.labels), bool)])


def detection(by_set):
    """AUROC of telling photographs from digits by mutual information."""
    return auroc(np.concatenate([by_set["digits"].mutual_information, by_set["photos"].mutual_information]), is_photo)


mean_log_probs = edd.uncertainty.ensemble.log_mean_probs(member_log_probs(test.inputs))
scores = {
    "ensemble": accuracy(np.exp(mean_log_probs), test.labels),
    "student": accuracy(np.exp(prediction["digits"].log_probs), test.labels),
}
print(f"accuracy  ensemble {scores['ensemble']:.3f}  student {scores['student']:.3f}")
print(f"AUROC     ensemble {detection(ensemble):.3f}  student {detection(prediction):.3f}")
kept = edd.metrics.fidelity.rank_correlation(np.asarray(ensemble["digits"].mutual_information), prediction["digits"].mutual_information)
print(f"rank correlation of knowledge uncertainty, student with ensemble: {kept:.3f}")

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3), sharey=True, layout="constrained")
for axis, (title, by_set) in zip(axes, (("ensemble", ensemble), ("student", prediction))):
    for name, result in by_set.items():
        axis.hist(np.log10(np.asarray(result.mutual_information) + 1e-9), bins=40, alpha=0.6, density=True, label=name)
    axis.set(title=title, xlabel="log10 of mutual information (nats)")
axes[0].legend()
plt.show()

# %% [markdown]
# Next: give `distill` a `workdir` to keep checkpoints and a record of the run, or do the same from files with
# `launch/distill.py`.
