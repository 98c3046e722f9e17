"""Renders the report of one run again, or merges several runs (seeds, splits, widths) into one report.

python launch/report.py --runs runs/spirals-3 runs/spirals-6 --out runs/spirals
"""

import argparse
import sys

from edd.experiments import report


def main(arguments: list[str] | None = None) -> int:
    """Parses the flags and calls `edd.experiments.report.render`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--runs", nargs="+", required=True, metavar="DIR", help="work directories of finished runs (each holds results.json)"
    )
    parser.add_argument("--out", metavar="DIR", help="where the report goes; default: the run itself, if there is one run")
    flags = parser.parse_args(arguments)
    if flags.out is None and len(flags.runs) > 1:
        parser.error("--out is needed to merge several runs")
    out = flags.out or flags.runs[0]
    try:
        report.render(flags.runs, out)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{out}/report.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
