"""Guards of the package's structure: what may import what, how long files get, what `import edd` pulls in."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
FLOORS = {
    "typing": 0,
    "math": 0,
    "distributions": 1,
    "uncertainty": 2,
    "losses": 2.5,
    "metrics": 2.5,
    "models": 3,
    "data": 3,
    "ensembles": 4,
    "decoding": 4,
    "distillers": 5,
    "training": 5.5,
    "experiments": 6,
}
BASIC = {"jax", "numpy", "chex", "jaxtyping"}
ONLY_IN = {  # third-party package -> the places that may import it
    "flax": ("edd/models/",),
    "optax": ("edd/training/", "edd/distillers/", "launch/bench"),
    "orbax": ("edd/training/",),
    "absl": ("launch/", "configs/"),
    "ml_collections": ("launch/", "configs/"),
    "grain": ("edd/data/",),
    "tensorflow_datasets": ("edd/data/",),
}
NEVER = {"tensorflow", "clu", "tensorflow_probability"}
INSIDE_FUNCTIONS = {"edd/metrics/sequence.py": {"jiwer", "sacrebleu"}}
TOP_LEVEL = {
    "edd",
    "configs",
    "launch",
    "tests",
    "colabs",
    "docs",
    ".ci",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
    ".gitignore",
}
MUTABLE = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
MUTATORS = {"append", "extend", "insert", "add", "update", "setdefault", "pop", "popitem", "remove", "discard", "clear"}


def tracked() -> list[str]:
    """Files of the repository: what git tracks, or (outside a checkout) everything that is not hidden."""
    run = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    names = run.stdout.split("\n") if run.returncode == 0 and run.stdout else [str(p.relative_to(ROOT)) for p in ROOT.rglob("*")]
    return sorted(name for name in names if name and (ROOT / name).is_file())


FILES = tracked()
SOURCES = [name for name in FILES if name.endswith(".py") and name.startswith(("edd/", "launch/", "configs/"))]
LIBRARY = [name for name in SOURCES if name.startswith("edd/")]
TREES = {name: ast.parse((ROOT / name).read_text()) for name in SOURCES}


def package(name: str) -> str:
    """The floor's key of a module or file path: edd/metrics/x.py and edd.metrics.x give "metrics"."""
    parts = name.removesuffix(".py").replace("/", ".").split(".")
    return parts[1] if len(parts) > 1 else ""


def imports(tree: ast.Module, inside: str = "") -> list[tuple[str, int]]:
    """(dotted module, line) of every import statement, at any depth; `from a import b` gives a.b, relative or not."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join(filter(None, [*inside.removesuffix(".py").split("/")[: -node.level], base]))
            found += [(f"{base}.{alias.name}", node.lineno) for alias in node.names]
    return found


def upward(name: str, tree: ast.Module) -> list[str]:
    """Imports of a file that point to its own floor in another package, or to a higher one."""
    own = package(name)
    bad = []
    for module, line in imports(tree, name):
        other = package(module)
        if not module.startswith("edd.") or other == own or other == "__version__":
            continue
        if other not in FLOORS or FLOORS[other] > FLOORS[own] or (FLOORS[other] == FLOORS[own] and FLOORS[own] >= 1):
            bad.append(f"{name}:{line} imports {module}")
    return bad


def test_every_package_has_a_floor():
    assert {package(name) for name in LIBRARY} - {"__init__"} <= set(FLOORS)


def test_imports_point_down():
    assert [problem for name in LIBRARY if name != "edd/__init__.py" for problem in upward(name, TREES[name])] == []


def test_the_import_guard_sees_an_upward_import():
    for source in (
        "from edd import losses",
        "import edd.losses.proxy",
        "from ..losses import proxy",
        "def f():\n  from edd.models.mlp import make",
    ):
        assert upward("edd/uncertainty/ensemble.py", ast.parse(source)), source
    assert not upward("edd/losses/proxy.py", ast.parse("from edd.uncertainty import ensemble\nfrom edd.losses import options"))


def test_floors_0_to_2_import_only_the_basics():
    bad = []
    for name in LIBRARY:
        if FLOORS.get(package(name), 9) >= 3 and name != "edd/__init__.py":
            continue
        allowed = BASIC | set(sys.stdlib_module_names) | {"edd"}
        statements = [node for node in TREES[name].body if isinstance(node, ast.Import | ast.ImportFrom)]
        at_top = set(imports(ast.Module(statements, []), name))
        for module, line in imports(TREES[name], name):
            library = module.split(".")[0]
            inside = library in INSIDE_FUNCTIONS.get(name, ()) and (module, line) not in at_top
            if library not in allowed and not inside:
                bad.append(f"{name}:{line} imports {module}")
    assert bad == []


@pytest.mark.parametrize("library", ONLY_IN)
def test_third_party_libraries_stay_in_their_place(library):
    bad = [
        f"{name}:{line}"
        for name in SOURCES
        for module, line in imports(TREES[name], name)
        if module.split(".")[0] == library and not name.startswith(ONLY_IN[library])
    ]
    assert bad == []


def test_libraries_the_project_does_not_use():
    bad = [
        f"{name}:{line} imports {module}"
        for name in SOURCES
        for module, line in imports(TREES[name], name)
        if module.split(".")[0] in NEVER
    ]
    assert bad == []


def test_flax_is_linen():
    names = [module for name in LIBRARY for module, _ in imports(TREES[name], name)]
    assert not [module for module in names if module.startswith("flax.nnx")]


def test_files_are_short():
    limits = {name: 250 if name.startswith("edd/training/") else 400 for name in SOURCES}
    lengths = {name: len((ROOT / name).read_text().splitlines()) for name in SOURCES}
    assert {name: lengths[name] for name in SOURCES if lengths[name] > limits[name]} == {}


def functions(tree: ast.AST):
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_functions_are_short():
    bad = {}
    for name in SOURCES:
        for node in functions(TREES[name]):
            doc = ast.get_docstring(node, clean=False)
            length = node.end_lineno - node.lineno + 1 - (len(doc.splitlines()) if doc else 0)
            if length > 60:
                bad[f"{name}:{node.lineno} {node.name}"] = length
    assert bad == {}


def mutations(tree: ast.Module) -> list[str]:
    """Module-level lists, dicts and sets that functions change, `global` statements, and module-level calls that mutate."""
    state = set()
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, MUTABLE):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            state |= {target.id for target in targets if isinstance(target, ast.Name)}
    bad = []
    for function in functions(tree):
        for node in ast.walk(function):
            if isinstance(node, ast.Global):
                bad.append(f"{node.lineno}: global {', '.join(node.names)}")
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
                if node.func.value.id in state and node.func.attr in MUTATORS:
                    bad.append(f"{node.lineno}: {node.func.value.id}.{node.func.attr}")
            elif isinstance(node, ast.Assign | ast.AugAssign | ast.Delete):
                targets = [node.target] if isinstance(node, ast.AugAssign) else node.targets
                for target in targets:
                    if isinstance(target, ast.Subscript) and isinstance(target.value, ast.Name) and target.value.id in state:
                        bad.append(f"{node.lineno}: {target.value.id}[...]")
    return bad


def test_no_module_level_mutable_state():
    assert {name: mutations(TREES[name]) for name in LIBRARY if mutations(TREES[name])} == {}


def test_the_state_guard_sees_a_registry():
    registry = "TABLE = {}\ndef register(f):\n  TABLE[f.__name__] = f\n  return f"
    assert mutations(ast.parse(registry))
    assert mutations(ast.parse("SEEN = []\ndef f(x):\n  SEEN.append(x)"))
    assert mutations(ast.parse("N = 0\ndef f():\n  global N\n  N = 1"))
    assert not mutations(ast.parse("TABLE = {'a': 1}\ndef f(x):\n  out = []\n  out.append(TABLE[x])\n  return out"))


def test_import_edd_is_light():
    heavy = {
        "flax",
        "optax",
        "orbax",
        "tensorflow",
        "tensorflow_datasets",
        "grain",
        "sklearn",
        "scipy",
        "matplotlib",
        "ml_collections",
        "tqdm",
    }
    script = (
        "import sys, edd; import edd.uncertainty.ensemble; namespaces = {n for n in dir(edd)}; "
        "print(sorted({m.split('.')[0] for m in sys.modules})); "
        "assert {'distributions', 'uncertainty', 'losses', 'metrics', 'models', 'experiments'} <= namespaces"
    )
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    loaded = set(ast.literal_eval(run.stdout.strip().splitlines()[-1]))
    assert "edd" in loaded and "jax" in loaded
    assert loaded & heavy == set()


def test_import_edd_starts_no_backend():
    """A script must be able to set devices and flags after its imports (and `jax.distributed` to start)."""
    script = "import edd; from jax._src import xla_bridge; assert not xla_bridge.backends_are_initialized()"
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_an_unknown_namespace_is_an_attribute_error():
    import edd

    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        edd.nonsense  # noqa: B018


def test_top_level_is_the_designed_one():
    assert {name.split("/")[0] for name in FILES} <= TOP_LEVEL


def test_tests_mirror_the_package():
    bad = []
    for name in FILES:
        parts = pathlib.PurePosixPath(name).parts
        if parts[0] != "tests" or not name.endswith(".py"):
            continue
        assert parts[-1] != "__init__.py", f"{name}: names repeat across folders, so tests are no packages"
        if (
            len(parts) > 2
            and parts[1] != "multiprocess"
            and not (ROOT / "edd" / pathlib.Path(*parts[1:-1])).is_dir()
            and parts[1] != "launch"
        ):
            bad.append(name)
    assert bad == []


def test_every_package_of_the_library_is_tested():
    packages = {package(name) for name in LIBRARY} - {"__init__", "typing"}
    tested = {pathlib.PurePosixPath(name).parts[1] for name in FILES if name.startswith("tests/") and name.count("/") >= 2}
    assert packages <= tested


def test_no_deprecated_parallelism():
    words = ("jax.pmap", "jax.experimental.pjit", "jax.experimental.shard_map", "xmap")
    bad = [f"{name}: {word}" for name in SOURCES for word in words if word in (ROOT / name).read_text()]
    assert bad == []
