"""One page for a study that is sentences, tables and figures: results.json, report.md, report.html and figures/."""

import pathlib
import shutil
import tempfile
from collections.abc import Callable

import jax

from edd.experiments import html, results
from edd.experiments.tables import Table


def merge(runs: list[dict], schema: str, key: Callable[[dict], tuple], varying: tuple[str, ...] = ()) -> dict:
    """One results dict with the parts of all runs.

    Args:
      runs: results dicts.
      schema: what all of them must have.
      key: part -> what may be there only once.
      varying: settings, by their dotted names, in which the runs may differ; besides them only the name and the data's folder.

    Raises:
      ValueError: no run, another schema, other settings, or one part twice.
    """
    if not runs:
        raise ValueError("there must be at least one run to merge")
    parts, seen = [], set()
    for index, each in enumerate(runs):
        if each.get("schema") != schema:
            raise ValueError(f"run {index} has schema {each.get('schema')!r}, expected {schema!r}: only runs of one study merge")
        other = differing(runs[0]["settings"], each["settings"], varying)
        if other:
            raise ValueError(f"run {index} has another {other[0]} than run 0: only runs of one study merge")
        for part in each["parts"]:
            if key(part) in seen:
                raise ValueError(f"run {index} repeats {key(part)}: each may count once")
            seen.add(key(part))
            parts.append(part)
    return {**runs[0], "run": {f"run {index}": each["run"] for index, each in enumerate(runs)}, "parts": parts}


def differing(first: dict, second: dict, varying: tuple[str, ...]) -> list[str]:
    """Dotted names of the settings that differ, without those in `varying` and below, run names and data folders.

    Examples:
      >>> differing({"data": {"splits": [0]}, "seed": 0}, {"data": {"splits": [1]}, "seed": 1}, ("data.splits",))
      ['seed']
    """
    one, other = (results.plain(results.flatten(each)) for each in (first, second))
    names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    may_differ = lambda name: name == "name" or name.endswith("data_dir") or f"{name}.".startswith(tuple(f"{each}." for each in varying))  # noqa: E731
    return [name for name in names if not may_differ(name)]


def write(
    found: dict,
    out: pathlib.Path,
    title: str,
    sentences: list[str],
    tables: list[Table],
    figures: dict[str, tuple],
    conventions: dict[str, str],
    *,
    smoke: bool = False,
) -> None:
    """Writes the four on process 0: complete, or the old files stay.

    Args:
      found: what results.json holds, with "run".
      out: folder, created.
      title: of the page.
      sentences: what the numbers say, first on the page.
      tables: under their own titles.
      figures: file name without ending -> (matplotlib figure or None, caption).
      conventions: what the numbers mean.
      smoke: say on top that they mean nothing.
    """
    if jax.process_index():
        return
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    if smoke:
        told = "A smoke run: two steps on invented data show that everything runs; the numbers mean nothing."
        sentences = [told, *sentences]
    body = [f"<h1>{html.escape(title)}</h1>", "<ul>" + "".join(f"<li>{html.prose(line)}</li>" for line in sentences) + "</ul>"]
    parts = [f"# {title}", "\n".join(f"- {line}" for line in sentences)]
    for table in tables:
        body += [f"<h2>{html.escape(table.title)}</h2>", html.table_html(table)]
        parts += [f"## {table.title}", html.table_markdown(table)]
    body, parts = [*body, "<h2>Figures</h2>"], [*parts, "## Figures"]
    with tempfile.TemporaryDirectory(dir=out) as folder:
        for name, (figure, caption) in figures.items():
            if figure is not None:
                path = pathlib.Path(folder) / f"{name}.png"
                figure.savefig(path, dpi=120)
                body.append(html.figure_html(path, caption))
                parts.append(f"![{caption}](figures/{name}.png)")
        (out / "figures").mkdir(exist_ok=True)
        for path in sorted(pathlib.Path(folder).iterdir()):
            shutil.move(path, out / "figures" / path.name)
    information = results.flatten(found["run"])
    body += ["<footer><h2>Conventions</h2>", html.definition_list(conventions)]
    body += ["<h2>The run</h2>", html.definition_list(information), "</footer>"]
    parts += ["## Conventions", "\n".join(f"- **{name}**: {text}" for name, text in conventions.items())]
    parts += ["## The run", "\n".join(f"- {name}: `{value}`" for name, value in information.items())]
    results.save(found, out)
    results.write_atomically(out / "report.md", "\n\n".join(parts) + "\n")
    results.write_atomically(out / "report.html", html.page(title, body))
