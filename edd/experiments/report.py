"""report.md, report.html and figures/ from results and predictions; and one report from the results of several runs."""

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from edd.experiments import (
    ablation_report,
    collapse_diagnostic_report,
    figures,
    function_laws_report,
    heatmaps,
    hierarchy_regression_report,
    html,
    online_report,
    partitions_report,
    predictions,
    regression_report,
    results,
    shift_report,
    smoothing_distillation_report,
    smoothing_features_report,
    smoothing_sweep_report,
    speech_report,
    style,
    tables,
    tile_study_report,
    translation_report,
    translation_smoothing_report,
    widths_report,
    wording,
)
from edd.experiments.evaluate import evaluate
from edd.experiments.heatmaps import Grid
from edd.experiments.predictions import Row

FIGURES = "figures"
STUDIES = (  # each with its SCHEMA, merge and write
    regression_report,
    ablation_report,
    function_laws_report,
    online_report,
    shift_report,
    collapse_diagnostic_report,
    widths_report,
    partitions_report,
    hierarchy_regression_report,
    tile_study_report,
    smoothing_distillation_report,
    smoothing_features_report,
    smoothing_sweep_report,
    speech_report,
    translation_report,
    translation_smoothing_report,
)


class Drawn(NamedTuple):
    """A figure that was saved: its file name without ending, and its caption."""

    name: str
    caption: str


class Sources(NamedTuple):
    """What figures are drawn from, for one run: `prefix` goes before file names, `label` before captions."""

    rows: Sequence[Row]
    labels: np.ndarray | None
    grid: Grid | None = None
    prefix: str = ""
    label: str = ""


def finish(workdir: str | os.PathLike, rows: Sequence[Row], labels: np.ndarray, *, grid: Grid | None = None, **options) -> dict:
    """The end of a run: saves the predictions (what cost the time), then evaluates, writes results.json and the report.

    Args:
      workdir: the run's directory.
      rows, labels: as for `evaluate.evaluate`.
      grid: predictions over a plane of 2-D inputs for the heat maps, or None.
      **options: passed to `evaluate.evaluate`: settings, run, reference, num_resamples, ...

    Returns:
      The results dict.
    """
    for row in rows:
        predictions.save_predictions(workdir, row)
    predictions.save_labels(workdir, labels)
    if grid is not None:
        heatmaps.save_grid(workdir, grid)
    found = evaluate(rows, labels, **options)
    results.save(found, workdir)
    write(found, workdir, [Sources(rows, np.asarray(labels), grid)])
    return found


def render(run_dirs: Sequence[str | os.PathLike], out: str | os.PathLike) -> dict:
    """Reads the results of one or more runs and writes one report into `out`; several runs are merged first.

    One run with `out` equal to its directory draws its report again. Figures need the predictions that `finish` saved; of
    several runs, the first of each variant is drawn.

    Returns:
      The results dict that the report shows; it is also saved as `out`/results.json.

    Raises:
      ValueError: no runs, a directory without results.json, runs that do not merge, `out` being one of several runs.
    """
    run_dirs, out = [Path(each) for each in run_dirs], Path(out)
    if not run_dirs:
        raise ValueError("run_dirs must name at least one run directory")
    if len(run_dirs) > 1 and any(out.resolve() == each.resolve() for each in run_dirs):
        raise ValueError(f"out must not be one of the merged runs, got {out}: its own results would be overwritten")
    for study in STUDIES:
        if results.has_schema(run_dirs[0], study.SCHEMA):
            loaded = [results.load(each, study.SCHEMA) for each in run_dirs]
            found = loaded[0] if len(loaded) == 1 else study.merge(loaded)
            study.write(found, out)
            return found
    loaded = [results.load(each) for each in run_dirs]
    try:
        found = loaded[0] if len(loaded) == 1 else results.merge(loaded)
    except ValueError as error:
        names = ", ".join(f"{index} = {each}" for index, each in enumerate(run_dirs))
        raise ValueError(f"{error} (runs: {names})") from error
    results.save(found, out)
    write(found, out, _sources(run_dirs, found))
    return found


def _sources(run_dirs: list[Path], found: dict) -> list[Sources]:
    if len(run_dirs) == 1:
        return [_load_sources(run_dirs[0], found)]
    chosen: dict[str, Sources] = {}
    titles = tables.variant_titles(found["summary"])
    for index, run_dir in enumerate(run_dirs):
        variant = next((row["variant"] for row in found["rows"] if row["run"] == index), {})
        key = ", ".join(f"{titles[name]} = {value}" for name, value in variant.items())
        if key not in chosen:
            prefix = "".join(
                letter if letter.isalnum() or letter in "-_." else "_" for letter in key.replace(" = ", "-").replace(", ", "_")
            )
            chosen[key] = _load_sources(run_dir, found)._replace(prefix=f"{prefix}_" if key else "", label=key)
    return list(chosen.values())


def _load_sources(run_dir: Path, found: dict) -> Sources:
    order = {name: index for index, name in enumerate(dict.fromkeys(row["name"] for row in found["rows"]))}
    rows = [row for row in predictions.load_predictions(run_dir) if row.name in order]
    rows = [row._replace(predictions={name: row.predictions[name] for name in found["sets"] if name in row.predictions}) for row in rows]
    rows.sort(key=lambda row: (order[row.name], row.seed))
    return Sources(rows, predictions.load_labels(run_dir), heatmaps.load_grid(run_dir))


# --- figures ----------------------------------------------------------------------------------------------------------


def draw(sources: Sequence[Sources], found: dict, folder: Path) -> list[Drawn]:
    """Draws every figure that has something to show into `folder` as .png and .svg."""
    drawn = []
    if any(entry["variant"] for entry in found["summary"]):
        figure = figures.study(found["summary"])
        if figure is not None:
            style.save(figure, folder, "study")
            drawn.append(
                Drawn("study", "Mean over the seeds against the setting in which the runs differ; bars are one standard deviation.")
            )
    for source in sources:
        for name, caption, figure in _figures(source):
            if figure is not None:
                style.save(figure, folder, source.prefix + name)
                drawn.append(Drawn(source.prefix + name, f"{source.label}: {caption}" if source.label else caption))
    return drawn


def _figures(source: Sources):
    rows = figures.representatives(source.rows)
    if source.grid is not None:
        caption = "Total uncertainty (above) and knowledge uncertainty (below) over the input plane, one colour scale per line, in nats."
        yield "heatmaps", caption, heatmaps.heatmaps(source.grid)
    if not rows:
        return
    caption = "Knowledge uncertainty (mutual information) in and out of distribution; zeros are counted in the first bin."
    yield "uncertainty", caption, figures.uncertainty_histograms(rows)
    caption = "Detecting out-of-distribution examples by mutual information (I), or by total uncertainty (H) for rows without it."
    yield "roc", caption, figures.roc(rows)
    if source.labels is not None:
        caption = "Error among the test examples kept when the most uncertain by total uncertainty are rejected."
        yield "risk_coverage", caption, figures.risk_coverage(rows, source.labels)
        caption = "Reliability: accuracy per confidence bin; red: the gap to the mean confidence; dot size: share of examples."
        yield "reliability", caption, figures.reliability(rows, source.labels)


# --- pages ------------------------------------------------------------------------------------------------------------


def write(found: dict, out: str | os.PathLike, sources: Sequence[Sources] = ()) -> None:
    """Writes report.md, report.html and figures/ into `out`: built aside first, then moved file by file, so nothing is lost."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    build = Path(tempfile.mkdtemp(dir=out, prefix=".report."))
    try:
        drawn = draw(sources, found, build / FIGURES)
        (build / "report.md").write_text(markdown_page(found, drawn))
        (build / "report.html").write_text(html_page(found, drawn, build / FIGURES))
        for path in sorted(each for each in build.rglob("*") if each.is_file()):
            target = out / path.relative_to(build)
            target.parent.mkdir(exist_ok=True)
            os.replace(path, target)
    finally:
        shutil.rmtree(build, ignore_errors=True)


def markdown_page(found: dict, drawn: Sequence[Drawn]) -> str:
    """The report as GitHub Markdown; figures are linked as files of figures/."""
    parts = [f"# {wording.title(found)}"]
    for heading, paragraphs in wording.opening(found):
        marks = "- " if len(paragraphs) > 1 else ""
        parts += [f"## {heading}", "\n".join(marks + paragraph for paragraph in paragraphs)]
    main = tables.main_table(found)
    if main is not None:
        parts += [f"## {main.title}", html.table_markdown(main)]
        parts += ["Bootstrap intervals of the same table:", html.table_markdown(main, intervals=True)]
    notes = _notes(found)
    if notes:
        parts += ["Notes:", "\n".join(f"- {note}" for note in notes)]
    if drawn:
        parts += ["## Figures", *(f"![{each.caption}]({FIGURES}/{each.name}.png)\n\n{each.caption}" for each in drawn)]
    for table in tables.all_tables(found):
        parts += [f"## {table.title}", html.table_markdown(table)]
        if any(cell.interval for row in table.rows for cell in row):
            parts += ["Bootstrap intervals:", html.table_markdown(table, intervals=True)]
    parts += ["## Conventions", "\n".join(f"- **{name}**: {text}" for name, text in found["conventions"].items())]
    parts += ["## The run", "\n".join(f"- {name}: `{value}`" for name, value in _run_information(found).items())]
    parts += ["```json\n" + json.dumps(results.encode(_settings(found)), indent=1) + "\n```"]
    return "\n\n".join(parts) + "\n"


def html_page(found: dict, drawn: Sequence[Drawn], folder: Path) -> str:
    """The report as one self-contained HTML page."""
    title, body = wording.title(found), []
    name, _, rest = title.partition(": ")
    body.append(f"<h1>{html.escape(name)}</h1>\n<p class='soft'>{html.escape(rest[:1].upper() + rest[1:])}.</p>")
    for heading, paragraphs in wording.opening(found):
        body.append(f"<h2>{html.escape(heading)}</h2>")
        body += [f"<p>{html.prose(paragraph)}</p>" for paragraph in paragraphs]
    main = tables.main_table(found)
    if main is not None:
        body += [f"<h2>{html.escape(main.title)}</h2>", html.table_html(main)]
    notes = _notes(found)
    if notes:
        body.append("<ul>" + "".join(f"<li>{html.escape(note)}</li>" for note in notes) + "</ul>")
    if drawn:
        body += ["<h2>Figures</h2>", *(html.figure_html(folder / f"{each.name}.png", each.caption) for each in drawn)]
    body.append("<h2>All numbers</h2>")
    for table in tables.all_tables(found):
        body += [f"<h3>{html.escape(table.title)}</h3>", html.table_html(table)]
    body += ["<footer><h2>Conventions</h2>", html.definition_list(found["conventions"])]
    body += ["<h2>The run</h2>", html.definition_list(_run_information(found))]
    settings = html.escape(json.dumps(results.encode(_settings(found)), indent=1))
    body.append(f"<details><summary>Settings</summary><pre>{settings}</pre></details></footer>")
    return html.page(title, body)


def _notes(found: dict) -> list[str]:
    notes = [f"{entry['name']}{_variant(entry)}: {note}" for entry in found["summary"] for note in entry["notes"]]
    runs = found.get("runs") or [{"run": found["run"]}]
    for index, each in enumerate(runs):
        for name, steps in _diverged(each["run"]).items():
            listed = ", ".join(f"{replica} at step {step}" for replica, step in steps.items())
            where = f" (run {index})" if len(runs) > 1 else ""
            notes.append(f"{name}{where}: not finite and left out from there on: replica {listed}")
    return notes + _twins(found.get("runs") or [])


def _twins(runs: list[dict]) -> list[str]:
    """A line for each run with the settings, seed included, of an earlier one: other data, or the same work counted twice."""
    first: dict[str, int] = {}
    notes = []
    for index, each in enumerate(runs):
        earlier = first.setdefault(json.dumps(results.encode(each["settings"]), sort_keys=True), index)
        if earlier != index:
            told = f"Run {index} has the settings and the seed of run {earlier}"
            notes.append(f"{told}: counted as a further seed, which is right only if their data differ.")
    return notes


def _diverged(run: dict) -> dict:
    diverged = run.get("diverged (replica: step)")
    return diverged if isinstance(diverged, dict) else {}


def _variant(entry: dict) -> str:
    titles = tables.variant_titles([entry])
    return f" ({', '.join(f'{titles[name]} = {value}' for name, value in entry['variant'].items())})" if entry["variant"] else ""


def _run_information(found: dict) -> dict:
    runs = found.get("runs")
    if not runs or len(runs) == 1:
        return results.flatten(found["run"])
    return {f"run {index}: {name}": value for index, each in enumerate(runs) for name, value in results.flatten(each["run"]).items()}


def _settings(found: dict) -> dict | list:
    runs = found.get("runs")
    return found["settings"] if not runs or len(runs) == 1 else [each["settings"] for each in runs]
