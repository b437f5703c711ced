"""Notebooks: they run from top to bottom, and are stored without outputs."""

import asyncio
import sys

import pytest

from tests.paths import ROOT

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
jupyter_client = pytest.importorskip("jupyter_client")


@pytest.mark.parametrize("name", ["dataset_tour", "explore_predictions", "keypoints", "detection"])
def test_a_notebook_is_stored_without_outputs_and_runs(name, tmp_path, monkeypatch):
    if name == "detection":
        pytest.importorskip("torchvision", exc_type=ImportError)
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs") and not cell.get("execution_count")
        cell.source = cell.source.replace('SIZE = "small"', 'SIZE = "tiny"')
    manager = jupyter_client.AsyncKernelManager()
    manager.kernel_spec.argv[0] = sys.executable
    client = nbclient.NotebookClient(
        notebook, km=manager, timeout=120, resources={"metadata": {"path": str(tmp_path)}}
    )
    try:
        client.execute()
    finally:
        asyncio.run(manager.shutdown_kernel(now=True))
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert not [output for output in outputs if output.output_type == "error"]
    data = [output.data for output in outputs if "data" in output]
    assert sum("image/png" in mimes for mimes in data) >= 3
    if name == "explore_predictions":
        assert any("application/vnd.jupyter.widget-view+json" in mimes for mimes in data)
        assert any("<img src=" in mimes.get("text/html", "") for mimes in data)
        assert any("at scales 0.75, 1: mIoU" in str(mimes) for mimes in data)
