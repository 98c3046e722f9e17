"""Reports whether ensembles' knowledge uncertainty collapses, from saved predictions of their members.

python launch/collapse_diagnostic.py 1=narrow.npz 8=wide.npz --out runs/collapse
"""

import argparse
import pathlib


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument(
        "ensembles",
        nargs="+",
        metavar="[NAME=]PATH",
        help="an .npz file with an array logits, log_probs or probs [M, N, K], an .npy file, or a finished run directory; several are "
        "several widths, by NAME (numbers are put in order)",
    )
    made.add_argument("--out", required=True, metavar="DIR", help="where the report goes")
    made.add_argument("--kind", choices=["logits", "log_probs", "probs"], help="what the arrays of files are; default: by their names")
    made.add_argument("--groupings", type=int, default=8, help="orders of the members: as given, and so many less one random ones")
    made.add_argument("--batch-size", type=int, help="examples at a time; default: as many as fit")
    made.add_argument("--seed", type=int, default=0, help="of the random orders")
    made.add_argument("--traceback", action="store_true", help="show where in the code an error came from")
    return made


def named(text: str) -> tuple[str, str]:
    """(name, path) of NAME=PATH; a path alone is named by its last part."""
    name, found, path = text.partition("=")
    return (name, path) if found and name and not pathlib.Path(text).exists() else (pathlib.Path(text).stem, text)


def run(given: argparse.Namespace) -> None:
    """Loads every ensemble and writes the report."""
    from edd.experiments import collapse_diagnostic

    ensembles = {}
    for name, path in map(named, given.ensembles):
        if name in ensembles:
            raise ValueError(f"two ensembles are called {name!r}: give them names, NAME=PATH")
        ensembles[name] = collapse_diagnostic.load(path, given.kind)
    options = {"groupings": given.groupings, "batch_size": given.batch_size, "seed": given.seed}
    collapse_diagnostic.run(ensembles, given.out, name=pathlib.Path(given.out).name, **options)


def main() -> None:
    given = parser().parse_args()
    from edd.experiments import errors

    errors.tell(lambda: run(given), show_traceback=given.traceback)
    print(f"{given.out}/report.html")


if __name__ == "__main__":
    main()
