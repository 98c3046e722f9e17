"""Online learning: the same result in any grouping, the exact posterior on a linear-Gaussian truth, weights by hand, a small run."""

import time

import numpy as np
import pytest

from edd.experiments import launch, online, online_report, report


def law(rng, count, q=3):
    return online.Law((rng.normal(size=count), rng.normal(size=(count, q)), rng.uniform(0.1, 1.0, size=count)))


def test_one_by_one_in_batches_and_all_together_agree():
    rng = np.random.default_rng(0)
    stream, labels = law(rng, 57), rng.normal(size=57).astype(np.float32)
    assert online.disagreement(stream, labels) < 1e-5
    test = law(rng, 4)
    *_, (count, last) = online.updated(stream, test, labels, [0, 7, 57])
    ((_, whole),) = online.updated(stream, test, labels, [57])
    assert count == 57
    np.testing.assert_allclose(last.means, whole.means, rtol=1e-5)
    np.testing.assert_allclose(last.variances, whole.variances, rtol=1e-5)


def test_updates_are_the_dense_gaussian_conditional():
    rng = np.random.default_rng(0)
    stream, test, labels = law(rng, 20), law(rng, 5), rng.normal(size=20).astype(np.float32)
    ((_, found),) = online.updated(stream, test, labels, [20])
    inner = stream[1] @ stream[1].T + np.diag(stream[2])
    gain = np.linalg.solve(inner, stream[1] @ test[1].T).T
    np.testing.assert_allclose(found.means[0], test[0] + gain @ (labels - stream[0]), rtol=1e-9)
    spread = np.diag(test[1] @ test[1].T - gain @ stream[1] @ test[1].T)
    np.testing.assert_allclose(found.variances[0], spread + test[2], rtol=1e-9)


def test_labels_from_the_students_own_law_bring_the_error_down_to_the_noise():
    rng = np.random.default_rng(1)
    q, z = 4, np.array([1.0, -1.0, 1.0, -1.0])
    stream, test = law(rng, 400, q), law(rng, 200, q)
    labels = stream[0] + stream[1] @ z + np.sqrt(stream[2]) * rng.normal(size=400)
    truth = test[0] + test[1] @ z
    errors = {
        count: np.sqrt(np.square(found.means[0] - truth).mean()) for count, found in online.updated(stream, test, labels, [0, 10, 400])
    }
    assert errors[0] > 1 > errors[10] > 5 * errors[400]


def test_teachers_are_weighted_by_their_likelihood():
    stream = np.zeros((2, 1, 2)) + np.array([0.0, 1.0])
    stream[1, 0, 0] = 2.0  # two standard deviations off the label 0
    test = np.stack([np.full((3, 2), 1.0), np.full((3, 2), 5.0)])
    mixture, effective = online.reweighted(stream, np.zeros(1), test)
    weight = 1 / (1 + np.exp(-2.0))
    assert np.mean(mixture.means[:, 0] == 1.0) == pytest.approx(weight, abs=1 / online.COMPONENTS)
    assert effective == pytest.approx(1 / (weight**2 + (1 - weight) ** 2))
    even, effective = online.reweighted(stream[:, :0], np.zeros(0), test)
    assert effective == pytest.approx(2) and even.means.mean() == pytest.approx(3)


@pytest.fixture
def config(tmp_path):
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(60, 2))
    np.savetxt(tmp_path / "mine.csv", np.column_stack([inputs, inputs.sum(1)]), delimiter=",")
    training = {"model": {"name": "mlp", "options": {"widths": [4]}}, "epochs": 100.0, "max_steps": 3, "batch_size": 16}
    return {
        "name": "toy",
        "data": {"sets": [str(tmp_path / "mine.csv")], "design": "train", "teacher_fraction": 0.5},
        "ensemble": {"num_members": 3, "training": training},
        "student": {"method": "dlf", "training": training, "options": {"latent_dim": 2}},
        "counts": [0, 5, 1000],
        "refit_counts": [1000],
    }


def test_a_study_from_end_to_end(config, tmp_path):
    found = launch.run({"experiment": "online", **config}, str(tmp_path / "run"), progress=False)
    (part,) = found["parts"]
    assert list(part["rows"]["DLF, latent updated"]) == ["0", "5", "27"] and list(part["rows"]["Ensemble, trained anew"]) == ["27"]
    assert part["order"] < 1e-5 and part["num_train"] == part["num_new"] == 27
    assert "| mine | DLF, latent updated |" in (tmp_path / "run" / "report.md").read_text()
    assert (tmp_path / "run" / "figures" / "online.png").stat().st_size > 5000
    assert report.render([tmp_path / "run"], tmp_path / "again")["parts"] == found["parts"]
    with pytest.raises(ValueError, match="run 1 repeats"):
        online_report.merge([found, found])


def test_timing_leaves_the_first_call_out():
    calls = []

    def work():
        calls.append(len(calls))
        time.sleep(0.5 if len(calls) == 1 else 0.0)
        return {"call": len(calls)}

    found, seconds = online.timed(work)
    assert found == {"call": 2} and seconds < 0.4


def test_mistakes(config, tmp_path):
    for change, message in (
        ({"counts": [-1]}, "counts must be"),
        ({"refit_counts": [3]}, "hold all refit_counts"),
        ({"student": {**config["student"], "method": "hydra", "options": {}}}, "must be 'dlf'"),
        ({"data": {**config["data"], "teacher_fraction": 1.0}}, "later labels need rows"),
    ):
        with pytest.raises(ValueError, match=message):
            online.run({**config, **change}, tmp_path / "none", progress=False)
    assert not (tmp_path / "none").exists()
