"""Guards of what people read: docstrings, the README's commands, the notebooks, and text that must not be in the repository."""

import ast
import json
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
REFERENCE = {  # modules whose every public function is a formula of the field: an example and a citation each
    "edd/uncertainty/ensemble.py",
    "edd/uncertainty/dirichlet.py",
    "edd/uncertainty/hierarchy.py",
    "edd/uncertainty/sequence.py",
    "edd/losses/supervised.py",
    "edd/losses/distillation.py",
    "edd/losses/distribution.py",
    "edd/losses/proxy.py",
    "edd/losses/top_k.py",
}
EXAMPLES = REFERENCE | {  # public modules whose functions carry a doctest
    "edd/distributions/categorical.py",
    "edd/distributions/dirichlet.py",
    "edd/math/special.py",
    "edd/metrics/classification.py",
    "edd/metrics/calibration.py",
    "edd/metrics/detection.py",
    "edd/metrics/rejection.py",
    "edd/metrics/sequence.py",
    "edd/metrics/quantiles.py",
    "edd/metrics/fidelity.py",
    "edd/metrics/bootstrap.py",
    "edd/data/sources.py",
}


def tracked() -> list[str]:
    run = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    names = run.stdout.split("\n") if run.returncode == 0 and run.stdout else [str(p.relative_to(ROOT)) for p in ROOT.rglob("*")]
    return sorted(name for name in names if name and (ROOT / name).is_file())


FILES = tracked()
LIBRARY = [name for name in FILES if name.startswith("edd/") and name.endswith(".py")]


def public_functions(name: str):
    """Top-level functions of a module with a full docstring; private ones and one-line helpers are left out."""
    tree = ast.parse((ROOT / name).read_text())
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]
    return [node for node in functions if "\n" in (ast.get_docstring(node) or "")]


def text(name: str) -> str:
    try:
        return (ROOT / name).read_text()
    except UnicodeDecodeError:
        return ""


@pytest.mark.parametrize("name", LIBRARY)
def test_modules_and_public_functions_and_classes_are_documented(name):
    tree = ast.parse(text(name))
    assert ast.get_docstring(tree), f"{name} has no module docstring"
    nodes = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")]
    assert [node.name for node in nodes if not ast.get_docstring(node)] == []


@pytest.mark.parametrize("name", sorted(EXAMPLES & set(LIBRARY)))
def test_public_functions_carry_a_doctest(name):
    bad = [node.name for node in public_functions(name) if not re.search(r"Examples:\n(.*\n)*?\s+>>> ", ast.get_docstring(node) or "")]
    assert bad == []


@pytest.mark.parametrize("name", sorted(REFERENCE & set(LIBRARY)))
def test_formulas_cite_their_source(name):
    bad = [node.name for node in public_functions(name) if not re.search(r"References?:\n\s+\S+", ast.get_docstring(node) or "")]
    assert bad == []


def test_the_listed_modules_exist():
    assert EXAMPLES <= set(LIBRARY)


def test_readme_and_ci_run_the_same_test_command():
    command = re.search(r'^TEST_COMMAND="(.+)"$', text(".ci/run"), re.MULTILINE).group(1)
    assert command in text("README.md").splitlines()
    assert command.startswith("python3 -m venv ") and "[dev]" in command and "pytest" in command


def test_readme_has_the_main_job_as_one_line_that_makes_its_own_environment():
    lines = [line for line in text("README.md").splitlines() if line.startswith("python3 -m venv ") and "launch/run.py" in line]
    assert len(lines) == 1
    assert "--config configs/digits.py" in lines[0] and "pip install" in lines[0]


def test_ci_calls_the_command_it_states():
    script = text(".ci/run")
    assert 'eval "$TEST_COMMAND"' in script and "rm -rf .venv-test" in script


FENCED = re.compile(r"```(?:sh|bash)\n(.*?)```", re.DOTALL)


def test_files_named_in_readme_commands_exist():
    for block in FENCED.findall(text("README.md")):
        for path in re.findall(r"(?<![\w./-])((?:launch|configs)/\w+\.py)", block):
            assert (ROOT / path).is_file(), path


def test_every_config_says_what_it_reproduces_and_how_to_run_it():
    configs = [name for name in FILES if name.startswith("configs/") and name.endswith(".py")]
    assert configs
    for name in configs:
        header = ast.get_docstring(ast.parse(text(name))) or ""
        assert re.search(r"Reproduces", header), f"{name}: what does it reproduce?"
        assert f"launch/run.py --config {name}" in header, f"{name}: with which command?"


# Spelled in pieces, so that this file does not find itself.
FORBIDDEN = {
    "a machine path": re.compile(r"(?<![\w.}-])/(?:" + "|".join(("work", "farm", "root", "home", "tmp")) + ")/"),
    "a registry host": re.compile(r"py[p]i\.org|python[h]osted|npm[j]s\.|anaconda\.o[r]g"),
    "an unfinished note": re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b"),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_tracked_text_is_free_of(what):
    here = pathlib.Path(__file__).name
    names = [name for name in FILES if name != "LICENSE" and not name.endswith(here)]
    found = [f"{name}: {match.group(0)}" for name in names for match in [FORBIDDEN[what].search(text(name))] if match]
    assert found == []


def test_the_search_for_machine_paths_finds_one():
    assert FORBIDDEN["a machine path"].search("data_dir = '/" + "root/data'")
    assert FORBIDDEN["a registry host"].search("https://py" + "pi.org/simple")
    assert not FORBIDDEN["a machine path"].search("python launch/run.py --workdir runs/work")


NOTEBOOKS = [name for name in FILES if name.startswith("colabs/") and name.endswith(".ipynb")]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebooks_are_stripped_and_paired(name):
    jupytext = pytest.importorskip("jupytext", reason="install the dev extra")
    notebook = json.loads(text(name))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert code and all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    pair = jupytext.read(ROOT / name.replace(".ipynb", ".py"))
    ours = [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]]
    assert ours == [(cell["cell_type"], cell["source"]) for cell in pair.cells]


def test_there_is_a_notebook():
    assert "colabs/distil_your_ensemble.ipynb" in NOTEBOOKS


def test_changelog_has_the_version():
    version = re.search(r'^version = "(.+)"$', text("pyproject.toml"), re.MULTILINE).group(1)
    assert f"## {version}" in text("CHANGELOG.md")
    assert f'__version__ = "{version}"' in text("edd/__init__.py")
