"""Executes a notebook in its own folder and throws the outputs away: python .ci/notebook.py colabs/NAME.ipynb."""

import pathlib
import sys

import nbclient
import nbformat


def main(path: str) -> None:
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(pathlib.Path(path).parent)}}
    )
    client.execute()
    print(f"{path}: {sum(cell.cell_type == 'code' for cell in notebook.cells)} cells ran")


if __name__ == "__main__":
    main(sys.argv[1])
