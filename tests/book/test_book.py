"""What the chapters' cells call."""

import inspect
import random
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from nbclient import NotebookClient

from cocoop_tutorial import FrozenCLIP, harmonic_mean, save_result
from cocoop_tutorial.book import notebook as book
from cocoop_tutorial.evaluation.accuracy import Evaluation


def run_cells(folder: Path, *cells: str) -> list[list[dict]]:
    """Executes the cells in a clean kernel; the outputs of each."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "python3"}
    resources = {"metadata": {"path": str(folder)}}
    done = NotebookClient(notebook, timeout=300, resources=resources).execute()
    return [cell.outputs for cell in done.cells]


@pytest.mark.slow
def test_cells_of_a_chapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COCOOP_RESULTS", str(tmp_path))
    save_result("r", {"coop": {"base": 81.25}}, command="make r", seeds=[1, 2], device="cpu")
    outputs = run_cells(
        tmp_path,
        "from cocoop_tutorial import harmonic_mean\n"
        "from cocoop_tutorial.book import notebook as book, plots\n"
        "book.setup(seed=7)",
        "plots.bars({'CLIP': 70.0})",
        "book.show_source(harmonic_mean)",
        "book.show_text('Base: {coop[base]:.1f}%', **book.load_result('r')['data'])\n"
        "book.cite_result('r')",
        "import pandas\npandas.DataFrame({'$x$<b>': ['<script>{{ 1 }}']})\n",
        "book.show_text('Worst: {name}', name='<script> {worst} $x$ %s')",
        "from cocoop_tutorial.progress import bar\nfor _ in bar(range(3), 'steps'): pass",
    )
    printed = outputs[0][0]["text"]
    for word in (
        "versions:",
        f"torch {torch.__version__.split('+')[0]}",
        "seed:     7",
        "embedded",
    ):
        assert word in printed
    assert len(outputs[1]) == 1 and "image/png" in outputs[1][0]["data"]
    assert outputs[2][0]["data"]["text/markdown"].startswith("```python\ndef harmonic_mean")
    assert outputs[3][0]["data"]["text/markdown"] == "Base: 81.2%"
    cited = outputs[3][1]["data"]["text/markdown"]
    assert "`results/r.json`" in cited and "`make r`" in cited and "seeds 1, 2" in cited
    table = outputs[4][0]["data"]["text/html"]
    assert "$x$&lt;b&gt;" in table and "&lt;script&gt;{{ 1 }}" in table
    assert "mathjax_ignore" in table
    named = outputs[5][0]["data"]["text/markdown"]
    assert named == r"Worst: &lt;script> {worst} \$x\$ %s"
    assert outputs[6] == []  # no bar is left behind in an executed chapter


def test_setup_seeds_everything_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    draws = []
    for _ in range(2):
        book.setup(seed=3)
        draws.append((random.random(), np.random.rand(), torch.rand(1).item()))
    assert draws[0] == draws[1]
    assert "seed:     3" in capsys.readouterr().out


def test_setup_prints_the_world(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COCOOP_WORLD", "paper")
    book.setup()
    assert "ViT-B-16/openai" in capsys.readouterr().out
    book.setup(world="embedded")
    assert "icon-clip" in capsys.readouterr().out


def test_source_is_the_librarys_own() -> None:
    shown = book.source_markdown(harmonic_mean)
    assert inspect.getsource(harmonic_mean).rstrip() in shown
    assert "`cocoop_tutorial/evaluation/accuracy.py`" in shown
    assert "@property\ndef accuracy(self)" in book.source_markdown(Evaluation.accuracy)


@pytest.mark.parametrize("item", [harmonic_mean, FrozenCLIP, Evaluation.per_class])
def test_source_without_docstrings_is_the_same_code(item: object) -> None:
    def parsed(markdown: str) -> str:
        import ast

        tree = ast.parse(markdown.split("```python\n")[1].split("\n```")[0])
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
                node.body = node.body[1:]
        return ast.dump(tree)

    short = book.source_markdown(item, docstring=False)
    assert '"""' not in short
    assert parsed(short) == parsed(book.source_markdown(item))


def test_citation_of_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COCOOP_RESULTS", str(tmp_path))
    save_result("speed", {}, command="make bench", device="cpu")
    line = book.citation("speed")
    assert "Recorded" in line and "`make bench`" in line and "CPU" in line
