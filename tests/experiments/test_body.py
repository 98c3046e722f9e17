"""The body pre-trained in a run: the LoRA study end to end at smoke size, and settings that do not fit."""

import dataclasses
import importlib.util
import pathlib

import jax
import numpy as np
import pytest

from edd.experiments import body, build, distillation, settings
from edd.models import bert
from edd.models.imports import bert as imports

pytest.importorskip("safetensors", reason="needs the package safetensors")
CONFIG = pathlib.Path(__file__).resolve().parents[2] / "configs" / "lora_rte.py"


def config(arg: str) -> dict:
    spec = importlib.util.spec_from_file_location("lora_rte", CONFIG)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(arg).to_dict()


def parsed(arg: str = "smoke", **changes) -> settings.Settings:
    return settings.from_dict(settings.Settings, {**config(arg), **changes})


def test_the_study_runs_and_its_members_stand_on_the_body_it_made(tmp_path):
    small = config("smoke,one_step")
    small["baselines"] = {}
    for training in (small["body"]["training"], small["ensemble"]["training"], *(each["training"] for each in small["students"].values())):
        training["batch_size"] = 1  # one device for each replica: compiling for eight would be most of the time
    small["students"] = {name: small["students"][name] for name in ("proxy_reverse", "proxy_reverse_one_step")}
    results = distillation.run(small, tmp_path, progress=False)
    assert {row["name"] for row in results["rows"]} == {"Single", "Ensemble", "Proxy Dirichlet", *small["students"]}
    for row in results["rows"]:
        scores = [row["metrics"]["classification"][metric]["value"] for metric in ("accuracy", "nll", "ece")]
        assert np.isfinite(scores).all(), row["name"]
    sizes = {row["name"]: row["costs"]["parameters"] for row in results["rows"]}
    encoder = imports.load(tmp_path / "body")
    whole = sum(leaf.size for leaf in jax.tree.leaves(encoder))
    adapters = sizes["Single"] - whole  # of one member; the body is everybody's
    assert sizes["Ensemble"] == 2 * adapters + whole and 0 < adapters < whole / 4
    assert sizes["proxy_reverse_one_step"] == sizes["proxy_reverse"] == sizes["Single"]  # the student has the smoke body's only layer
    random = bert.make(2, architecture=build.TINY_BERT).shared["encoder"]
    assert not np.array_equal(random["word_embeddings"], encoder["word_embeddings"])


def test_without_a_body_the_settings_stay():
    whole = dataclasses.replace(parsed(), body=None)
    assert body.pretrain(whole, None, None) is whole


def test_every_encoder_moves_onto_the_body():
    moved = body._on(parsed("one_step"), "folder")
    trainings = [moved.ensemble.training, *(each.training for table in (moved.baselines, moved.students) for each in table.values())]
    assert len(trainings) == 10
    for training in trainings:
        assert training.model.options["weights"] == "folder" and "architecture" not in training.model.options
        assert training.model.options["rank"] == 8


def test_encoders_must_know_the_tokenizers_words_and_padding(tmp_path):
    pytest.importorskip("tokenizers", reason="needs the package tokenizers")
    (tmp_path / "text").mkdir()
    lines = [f"{i % 2}\tcat number {i} sat on the mat\tthe dog number {i} did not sit\n" for i in range(30)]
    (tmp_path / "text" / "rte_train.tsv").write_text("".join(lines))
    fits = config("")
    body.check_tokens(settings.from_dict(settings.Settings, fits), str(tmp_path))
    for change, message in (
        ({"pad_token_id": 1}, "DLF: the tokenizer pads with 0, the encoder masks 1"),
        ({"vocab_size": 5}, "DLF: .* table 5"),
    ):
        wrong = config("")
        options = wrong["students"]["DLF"]["training"]["model"]["options"]
        options["architecture"] = {**options["architecture"], **change}
        with pytest.raises(ValueError, match=message):
            body.check_tokens(settings.from_dict(settings.Settings, wrong), str(tmp_path))
    body.check_tokens(settings.from_dict(settings.Settings, {**fits, "data": {"name": "digits"}}), str(tmp_path))  # not a text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["data"].update(name="digits", options={}), "body needs a text task"),
        (lambda c: c["body"]["training"]["model"].update(name="bert"), "bert_language_model"),
        (lambda c: c["ensemble"]["training"]["model"]["options"].update(weights="somewhere"), "no weights"),
        (lambda c: c["body"]["training"]["model"]["options"].update(architecture={}), "no weights"),
        (lambda c: c["body"].update(fraction=0.0), "body.fraction"),
        (lambda c: c["body"].update(copies=0), "body.copies"),
    ],
)
def test_bodies_that_do_not_fit(change, message):
    wrong = config("")
    change(wrong)
    with pytest.raises(ValueError, match=message):
        body.check(settings.from_dict(settings.Settings, wrong))


@pytest.mark.parametrize(
    ("arg", "message"), [("rta", "known are mrpc"), ("roberta", "needs weights=DIR"), ("seed=x", "seed must be a whole number")]
)
def test_arguments_of_the_config(arg, message):
    with pytest.raises(ValueError, match=message):
        config(arg)


def test_tasks_and_bodies_of_the_config():
    assert parsed("").data.name == "rte" and parsed("").body is not None
    mrpc = parsed("mrpc,weights=w,one_step,seed=3")
    assert (mrpc.data.name, mrpc.seed, mrpc.body) == ("mrpc", 3, None)
    assert mrpc.data.options["tokenizer"] == "w/tokenizer.json"
    assert mrpc.students["proxy_reverse_one_step"].training.model.options["train_body"]
    assert mrpc.students["proxy_reverse"].training.model.options["num_hidden_layers"] == 3
    wic = parsed("wic,roberta,weights=w,student_weights=s")
    assert wic.students["proxy_reverse"].training.model.options["weights"] == "s"
    assert wic.evaluation.reference["Ensemble"]["accuracy"] == 0.6803 and not mrpc.evaluation.reference
