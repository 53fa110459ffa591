"""Run the notebooks of docs/notebooks again and store their outputs; equal outputs, equal bytes."""

from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]

for path in sorted((ROOT / "docs/notebooks").glob("*.ipynb")):
    notebook = nbformat.read(path, as_version=4)
    # Paths in the outputs are those of a checkout.
    client = NotebookClient(
        notebook, timeout=1200, record_timing=False, resources={"metadata": {"path": ROOT}}
    )
    client.execute()
    # What differs between machines or runs is left out.
    notebook.metadata = {"kernelspec": notebook.metadata.get("kernelspec", {})}
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
    nbformat.write(notebook, path)
    print(f"{path.relative_to(ROOT)}: run, {path.stat().st_size:,} bytes")
