"""The collapse diagnostic: numbers against numpy, verdicts on ensembles made to deserve them, files, run directories, mistakes."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import scipy.special
import scipy.stats

from edd.experiments import collapse_diagnostic, predictions, report
from edd.experiments import collapse_diagnostic_report as words
from edd.experiments.collapse_diagnostic import Members

ROOT = pathlib.Path(__file__).parents[2]
SIZES = (6, 50, 4)  # members, examples, classes: one shape for all, so that little is compiled
BATCH = 32


def ensemble(spread, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(1, *SIZES[1:])) + spread * rng.normal(size=SIZES)).astype(np.float32)


def complementary():
    """Members 0 and 1, 2 and 3, 4 and 5 err in opposite directions: their pairs all but agree."""
    rng = np.random.default_rng(1)
    offsets = 0.5 * rng.normal(size=(3, *SIZES[1:]))
    return (rng.normal(size=(1, *SIZES[1:])) + np.stack([offsets, -offsets], 1).reshape(SIZES)).astype(np.float32)


def between(logits, size):
    probs = scipy.special.softmax(logits.astype(np.float64), -1)
    groups = probs.reshape(-1, size, *SIZES[1:]).mean(1)
    return (scipy.stats.entropy(probs.mean(0), axis=-1) - scipy.stats.entropy(groups, axis=-1).mean(0)).mean()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(folder, results) of one report on five ensembles."""
    out = tmp_path_factory.mktemp("diagnostic") / "out"
    made = {"10": ensemble(0.1), "2": ensemble(1.0), "1": ensemble(4.0), "20": complementary(), "30": np.repeat(ensemble(1.0)[:1], 6, 0)}
    found = collapse_diagnostic.run({name: {"test": Members(z)} for name, z in made.items()}, out, batch_size=BATCH)
    return out, found, made


def test_numbers_are_those_of_the_entropies(finished):
    _, found, made = finished
    for part in found["parts"]:
        logits = made[part["ensemble"]]
        assert part["total"] == pytest.approx(between(logits, 1), rel=1e-5, abs=1e-9)
        assert [each["size"] for each in part["partitions"]] == [1, 2, 3]
        for each in part["partitions"]:
            assert each["between"] == pytest.approx(between(logits, each["size"]), rel=1e-5, abs=1e-9)
            assert each["between"] + each["within"] == pytest.approx(part["total"], rel=1e-5, abs=1e-9)
            assert each["residual"] < 1e-5 and len(each["random"]) == 7
    values = between_each(made["2"])
    part = next(part for part in found["parts"] if part["ensemble"] == "2")
    assert part["standard_error"] == pytest.approx(values.std(ddof=1) / np.sqrt(50), rel=1e-4)


def between_each(logits):
    probs = scipy.special.softmax(logits.astype(np.float64), -1)
    return scipy.stats.entropy(probs.mean(0), axis=-1) - scipy.stats.entropy(probs, axis=-1).mean(0)


def test_verdicts(finished):
    out, found, _ = finished
    told = {part["ensemble"]: words.verdict(part) for part in found["parts"]}
    assert "It collapses as the law says: groups of" in told["10"] and "order of the members" not in told["10"]
    assert "but less than the law" in told["1"] and "far apart" in told["1"]
    assert "disagreement is zero" in told["30"]
    across = words.width_verdict(found, "test")
    assert across.startswith("Across ensembles, test: 1 ")  # numbers in order, not as given
    assert "Knowledge uncertainty falls from 1 to 30" in across and "not at every step (10 to 20)" in across
    page = (out / "report.md").read_text()
    assert all(sentence in page for sentence in (*told.values(), across))
    assert "| 10 | test | 2 x 3 |" in page and "figures/sizes.png" in page and "figures/ensembles.png" in page
    assert (out / "figures" / "sizes.png").stat().st_size > 5000
    assert json.loads((out / "results.json").read_text())["schema"] == words.SCHEMA


def test_the_order_as_given_decides_where_no_other_is_asked_for(tmp_path):
    found = collapse_diagnostic.run({"a": {"test": Members(complementary())}}, tmp_path / "one", groupings=1, batch_size=BATCH)
    told = words.verdict(found["parts"][0])
    assert "It collapses faster than the law" in told and "groups of 2 keep" in told and "order of the members" not in told
    with pytest.raises(ValueError, match="run 1 repeats"):
        words.merge([found, found])


def test_the_law_is_met_by_members_that_hardly_differ(finished):
    part = next(part for part in finished[1]["parts"] if part["ensemble"] == "10")
    for each in part["partitions"]:
        assert words.share(part, each) == pytest.approx(each["law"], rel=0.05)


def test_batches_and_kinds_change_nothing(finished, tmp_path):
    logits = ensemble(1.0)
    first = next(part for part in finished[1]["parts"] if part["ensemble"] == "2")
    probs = scipy.special.softmax(logits.astype(np.float64), -1)
    for name, array in (("probs", probs), ("log_probs", np.log(probs)), ("logits", logits)):
        np.savez(tmp_path / "members.npz", **{name: array})
        sets = collapse_diagnostic.load(tmp_path / "members.npz")
        assert sets["predictions"].kind == name
        found = collapse_diagnostic.measure(sets["predictions"], "a", groupings=1, batch_size=BATCH, rng=np.random.default_rng(0))
        assert found["total"] == pytest.approx(first["total"], rel=1e-5)
    whole = collapse_diagnostic.measure(Members(logits), "a", groupings=1, batch_size=None, rng=np.random.default_rng(0))
    for one, other in zip(whole["partitions"], first["partitions"]):
        assert one["between"] == pytest.approx(other["between"], rel=1e-5) and one["within"] == pytest.approx(other["within"], rel=1e-5)


def test_a_npy_file_is_mapped_and_an_array_of_any_name_needs_its_kind(tmp_path):
    np.save(tmp_path / "members.npy", ensemble(1.0))
    members = collapse_diagnostic.load(tmp_path / "members.npy")["predictions"]
    assert isinstance(members.values, np.memmap) and members.kind == "logits"
    np.savez(tmp_path / "any.npz", arr_0=ensemble(1.0))
    assert collapse_diagnostic.load(tmp_path / "any.npz", "logits")["predictions"].kind == "logits"
    with pytest.raises(ValueError, match="exactly one of the arrays logits, log_probs, probs .*it holds arr_0"):
        collapse_diagnostic.load(tmp_path / "any.npz")


def test_a_run_directory_gives_every_set(make_rows, tmp_path):
    rows, labels = make_rows(num_members=2, seeds=1)
    for row in rows:
        predictions.save_predictions(tmp_path / "run", row)
    predictions.save_labels(tmp_path / "run", labels)
    found = collapse_diagnostic.run({"run": collapse_diagnostic.load(tmp_path / "run")}, tmp_path / "out", groupings=1)
    whole = next(row for row in rows if row.group == "ensemble")
    for part in found["parts"]:
        expected = whole.predictions[part["set"]].mutual_information.mean()
        assert part["total"] == pytest.approx(expected, rel=1e-4)
        assert "2 is prime" in words.verdict(part)
    assert {part["set"] for part in found["parts"]} == {"test", "noise"}
    assert report.render([tmp_path / "out"], tmp_path / "again")["parts"] == found["parts"]
    (tmp_path / "run" / "results.json").write_text("{}")
    with pytest.raises(ValueError, match="holds other results"):
        collapse_diagnostic.run({"run": collapse_diagnostic.load(tmp_path / "run")}, tmp_path / "run")


def broken(value, at=(2, 40, 1)):
    logits = ensemble(1.0)
    logits[at] = value
    return logits


@pytest.mark.parametrize(
    "members, options, message",
    [
        (Members(broken(np.nan)), {}, r"a, test: predictions\[:, 32:50\] must be valid logits, got nan at member 2, example 8, class 1"),
        (Members(np.full(SIZES, 0.3), "probs"), {}, "must sum to 1 over classes, got 1.2 at member 0, example 0"),
        (Members(ensemble(1.0), "probs"), {}, "must be valid probs"),
        (Members(ensemble(1.0)[:1]), {}, "at least 2 members, got 1"),
        (Members(ensemble(1.0)[0]), {}, r"must be \[M, N, K\]"),
        (Members(ensemble(1.0)[:, :0]), {}, "1 example"),
        (Members(ensemble(1.0)[..., :1]), {}, "2 classes"),
        (Members(ensemble(1.0)), {"groupings": 0}, "groupings must be an integer of at least 1"),
        (Members(ensemble(1.0)), {"batch_size": 0}, "batch_size"),
    ],
)
def test_bad_input_is_one_clear_error_and_leaves_nothing(members, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        collapse_diagnostic.run({"a": {"test": members}}, tmp_path / "out", **{"groupings": 1, "batch_size": BATCH, **options})
    assert not (tmp_path / "out").exists()


def test_bad_files(tmp_path):
    for name, content in (("pickled.npz", None), ("text.npz", b"text"), ("text.npy", b"text")):
        path = tmp_path / name
        np.savez(path, logits=np.array([{}], object)) if content is None else path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{name} cannot be read as members' predictions"):
            collapse_diagnostic.load(path)
    with pytest.raises(ValueError, match="does not exist"):
        collapse_diagnostic.load(tmp_path / "absent.npz")
    with pytest.raises(ValueError, match="no predictions of single members"):
        collapse_diagnostic.load(tmp_path)
    with pytest.raises(ValueError, match="did you mean 'logits'"):
        collapse_diagnostic.load(tmp_path, "logit")


def part_of(between, random, law=0.5):
    partition = {"groups": 2, "size": 3, "law": law, "between": between, "random": random}
    return {"ensemble": "a", "set": "test", "members": 6, "total": 1.0, "partitions": [partition]}


def test_an_order_outside_the_random_ones_is_told():
    told = words.verdict(part_of(0.2, [0.5, 0.52, 0.48, 0.5]))
    assert "as the law says" in told and "The order of the members matters: as given, groups of 3 keep 60 % less than" in told
    assert "% more than" in words.verdict(part_of(0.9, [0.5, 0.52, 0.48, 0.5]))
    for quiet in (part_of(0.54, [0.5, 0.52, 0.48, 0.5]), part_of(0.2, []), part_of(0.51, [0.5] * 4)):
        assert "order of the members" not in words.verdict(quiet)


def test_scatter_of_the_random_orders_is_not_taken_for_a_law():
    told = words.verdict(part_of(0.5, [0.5, 0.9, 0.7, 0.5]))
    assert "as the law says" in told and "within the scatter of the random orders" in told
    assert "scatter" not in words.verdict(part_of(0.5, [0.5, 0.52, 0.48, 0.5]))
    assert "less than the law" in words.verdict(part_of(0.5, [0.64, 0.66, 0.65, 0.65]))


def test_a_prime_number_of_members_is_said_not_refused():
    part = {"ensemble": "a", "set": "test", "members": 7, "total": 0.2, "partitions": [{"groups": 7, "size": 1, "law": 1.0}]}
    assert "7 is prime" in words.verdict(part)


def test_the_script(tmp_path):
    np.savez(tmp_path / "narrow.npz", logits=ensemble(1.0))
    np.savez(tmp_path / "wide.npz", logits=ensemble(0.3))
    script = [sys.executable, str(ROOT / "launch" / "collapse_diagnostic.py")]
    words = [f"1={tmp_path / 'narrow.npz'}", str(tmp_path / "wide.npz"), f"--out={tmp_path / 'out'}", "--groupings=1"]
    done = subprocess.run([*script, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Knowledge uncertainty falls from 1 to wide" in (tmp_path / "out" / "report.md").read_text()
    assert str(tmp_path) not in (tmp_path / "out" / "report.md").read_text()
    done = subprocess.run([*script, str(tmp_path / "absent.npz"), f"--out={tmp_path / 'none'}"], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.strip().splitlines()[-1].startswith("error: ") and "Traceback" not in done.stderr
