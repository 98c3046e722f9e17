"""The report as files: complete, self-contained, re-rendered from disk, merged from parts, and never at the cost of the old one."""

import html.parser
import importlib.util
import json
import os
import pathlib
import re
import shutil

import numpy as np
import pytest

from edd.experiments import heatmaps, report, results, tables

FIGURES = {"uncertainty", "roc", "risk_coverage", "reliability"}


@pytest.fixture(scope="module")
def finished(make_rows, tmp_path_factory):
    """Work directories of three small runs: two seeds with 3 arms, one with 6; figures of the first alone, they take long."""
    folders = []
    for seed, arms in ((0, 3), (1, 3), (2, 6)):
        rows, labels = make_rows(num_test=24, num_out=12, seeds=2, seed=seed)
        rows = [row._replace(name=row.name + " <1>") if row.name == "Proxy" else row for row in rows]
        points = heatmaps.grid_points((-1, 1, -1, 1), (4, 3))
        flat = rows[-1].predictions["test"]
        flat = type(flat)(*(None if field is None else field[:12] for field in flat))
        grid = heatmaps.Grid((-1, 1, -1, 1), (4, 3), {"Ensemble": flat}, points, None)
        folder = tmp_path_factory.mktemp("runs") / f"run{seed}"
        settings = {"name": f"toy-{arms}", "seed": seed, "data": {"arms": arms}}
        run = {"date": f"2026-01-0{seed + 1}", "command": "run.py <x>", "machine": {"cpu_cores": 2}}
        with pytest.MonkeyPatch.context() as patch:
            if seed:
                patch.setattr(report, "draw", lambda *_: [])
            report.finish(folder, rows, labels, grid=grid, settings=settings, run=run, num_resamples=4)
        folders.append(folder)
    return folders


def test_files(finished):
    folder = finished[0]
    assert set(os.listdir(folder)) == {"results.json", "report.md", "report.html", "figures", "predictions"}
    expected = {f"{name}.{kind}" for name in FIGURES | {"heatmaps"} for kind in ("png", "svg")}
    assert set(os.listdir(folder / "figures")) == expected


class Checker(html.parser.HTMLParser):
    """Collects what a page loads and checks that tags nest."""

    def __init__(self):
        super().__init__()
        self.stack, self.loads, self.images = [], [], 0

    def handle_starttag(self, tag, attributes):
        self.loads += [value for name, value in attributes if name in ("src", "href")]
        self.images += tag == "img"
        if tag not in ("meta", "img", "br"):
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag


def test_html_is_self_contained(finished):
    text = (finished[0] / "report.html").read_text()
    checker = Checker()
    checker.feed(text)
    assert checker.stack == [] and checker.images == 5
    assert all(value.startswith("data:image/png;base64,") for value in checker.loads)
    assert "http" not in re.sub(r'src="data:[^"]*"', "", text) and "<script" not in text
    assert "prefers-color-scheme: dark" in text and "Proxy &lt;1&gt;" in text and "run.py &lt;x&gt;" in text


def test_markdown_is_complete(finished):
    text = (finished[0] / "report.md").read_text()
    for heading in ("# toy-3: ", "## Results", "## Detecting noise", "## Fidelity to the ensemble, test", "## Costs", "## Conventions"):
        assert "\n" + heading in "\n" + text
    for name in re.findall(r"\]\((figures/[^)]*)\)", text):
        assert (finished[0] / name).is_file()
    tables_found = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    assert len(tables_found) >= 10
    for table in tables_found:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
    assert "15 equal-width right-closed bins" in text and '"arms": 3' in text and "machine.cpu_cores: `2`" in text


def test_report_shows_the_numbers_of_results(finished):
    found = results.load(finished[0])
    text = (finished[0] / "report.md").read_text()
    for entry in found["summary"]:
        cell = tables.cell(entry["metrics"]["classification"]["nll"])
        assert f"| {entry['name']} | {len(entry['seeds'])} |" in text and f"| {cell.text} |" in text and f"| {cell.interval} |" in text


def test_rendering_again_gives_the_same_report(finished, tmp_path):
    report.render([finished[0]], tmp_path)
    for name in ("report.md", "report.html", "results.json", "figures/roc.png", "figures/heatmaps.svg"):
        assert (tmp_path / name).read_bytes() == (finished[0] / name).read_bytes(), name


def test_sets_and_rows_come_back_in_the_order_of_the_results(finished):
    found = results.load(finished[0])
    source = report._load_sources(finished[0], found)
    assert all(list(row.predictions) == list(found["sets"]) == ["test", "noise"] for row in source.rows)
    assert [(row.name, row.seed) for row in source.rows if row.group == "student"] == [
        ("EnD", 0), ("EnD", 1), ("Proxy <1>", 0), ("Proxy <1>", 1)
    ]  # fmt: skip


def test_rendering_in_place(finished, monkeypatch):
    monkeypatch.setattr(report, "draw", lambda sources, found, folder: [])
    report.render([finished[1]], finished[1])
    before = (finished[1] / "report.md").read_text()
    (finished[1] / "report.md").unlink()
    report.render([finished[1]], finished[1])
    assert (finished[1] / "report.md").read_text() == before and (finished[1] / "predictions").is_dir()


def test_merged_report(finished, tmp_path):
    found = report.render(finished, tmp_path / "merged")
    assert results.load(tmp_path / "merged")["summary"] == found["summary"]
    text = (tmp_path / "merged" / "report.md").read_text()
    assert text.startswith("# toy: ") and "3 runs that differ in `data.arms`" in text
    assert "| arms | row | n | accuracy %" in text and "| 3 | EnD | 4 |" in text and "| 6 | EnD | 2 |" in text
    names = {name.removesuffix(".png") for name in os.listdir(tmp_path / "merged" / "figures") if name.endswith(".png")}
    each = FIGURES | {"heatmaps"}
    assert names == {"study"} | {f"arms-{arms}_{name}" for arms in (3, 6) for name in each}
    assert "run 2: date: `2026-01-03`" in text


def test_without_predictions_the_numbers_remain(finished, tmp_path):
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "results.json").write_text((finished[0] / "results.json").read_text())
    report.render([tmp_path / "bare"], tmp_path / "out")
    assert "## Results" in (tmp_path / "out" / "report.md").read_text() and not (tmp_path / "out" / "figures").exists()


def test_failure_keeps_the_old_report(finished, tmp_path, monkeypatch):
    out = tmp_path / "out"
    shutil.copytree(finished[0], out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    def draw(sources, found, folder):
        folder.mkdir(parents=True)
        (folder / "roc.png").write_bytes(b"another picture")
        return []

    monkeypatch.setattr(report, "draw", draw)
    monkeypatch.setattr(report.html, "page", fail)  # the last thing that is made
    with pytest.raises(OSError, match="No space"):
        report.render([finished[0]], out)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_errors(finished, tmp_path):
    with pytest.raises(ValueError, match="at least one run directory"):
        report.render([], tmp_path)
    with pytest.raises(ValueError, match="no results.json at"):
        report.render([finished[0], tmp_path], tmp_path / "out")
    with pytest.raises(ValueError, match="out must not be one of the merged runs"):
        report.render(finished, finished[0])
    with pytest.raises(ValueError, match=rf"runs 0 and 1 are the same run.*\(runs: 0 = {finished[0]}"):
        report.render([finished[0], finished[0]], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_diverged_student_is_reported(make_rows, tmp_path, monkeypatch):
    rows, labels = make_rows(num_test=16, num_out=8, seeds=2)
    monkeypatch.setattr(report, "draw", lambda *_: [])
    broken = {name: each._replace(log_probs=each.log_probs * np.nan) for name, each in rows[-1].predictions.items()}
    rows[-1] = rows[-1]._replace(predictions=broken)
    report.finish(tmp_path, rows, labels, num_resamples=2)
    text = (tmp_path / "report.md").read_text()
    assert "- Proxy: seed 1: 16 of 16 predictions on test are not numbers" in text and "(1 of 2)" in text
    json.loads((tmp_path / "results.json").read_text(), parse_constant=lambda constant: pytest.fail(constant))


def test_runs_of_one_seed_are_named(make_rows, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "draw", lambda *_: [])
    for name, seed, rows_seed in (("a", 0, 0), ("b", 1, 1), ("c", 0, 2)):
        rows, labels = make_rows(num_test=16, num_out=8, seeds=1, seed=rows_seed)
        report.finish(tmp_path / name, rows, labels, num_resamples=0, settings={"name": "x", "seed": seed})
    for names, said in (("ab", False), ("abc", True)):
        report.render([tmp_path / name for name in names], tmp_path / "out")
        assert ("Run 2 has the settings and the seed of run 0" in (tmp_path / "out" / "report.md").read_text()) is said


def test_a_smoke_run_says_that_its_numbers_mean_nothing(make_rows, tmp_path, monkeypatch):
    rows, labels = make_rows(num_test=16, num_out=8, seeds=1)
    monkeypatch.setattr(report, "draw", lambda *_: [])
    for smoke in (False, True):
        report.finish(tmp_path, rows, labels, num_resamples=0, settings={"name": "x", "smoke": smoke})
        assert ("the numbers mean nothing" in (tmp_path / "report.md").read_text()) is smoke


@pytest.fixture
def launch():
    path = pathlib.Path(report.__file__).parents[2] / "launch" / "report.py"
    spec = importlib.util.spec_from_file_location("launch_report", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_launch(launch, finished, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(report, "draw", lambda *_: [])
    assert launch.main(["--runs", str(finished[0]), str(finished[2]), "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "report.html").is_file() and "report.html" in capsys.readouterr().out
    assert launch.main(["--runs", str(tmp_path)]) == 1
    assert "error: no results.json at" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        launch.main(["--runs", "a", "b"])
    assert "--out is needed" in capsys.readouterr().err
