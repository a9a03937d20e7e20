"""What the chapters' notebooks use in addition to the library itself.

A chapter begins with `setup(seed=1)`, shows the library's own source with `show_source`, and
writes numbers into its prose with `show_text`, from values that a cell has computed or
`load_result` has read.
"""

import ast
import inspect
import os
import random
import textwrap
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display

from cocoop_tutorial.book import plots
from cocoop_tutorial.progress import quiet
from cocoop_tutorial.results import PACKAGES, device_name, load_result, package_versions
from cocoop_tutorial.seeds import check_seed

__all__ = ["cite_result", "load_result", "setup", "show_source", "show_text"]

WORLDS = {
    "embedded": "embedded (icon-clip and icon datasets; no download)",
    "paper": "the paper's (ViT-B-16/openai and real data)",
}


def setup(seed: int = 1, world: str | None = None) -> None:
    """Seeds everything, sets the figures' style, and prints what this chapter runs on.

    Args:
        seed: For Python, NumPy and PyTorch.
        world: "embedded" or "paper"; None takes $COCOOP_WORLD, else "embedded". It is printed,
            so that readers know where the numbers on the page come from.
    """
    seed_everything(seed)
    plots.use_style()
    pd.set_option("display.html.use_mathjax", False)  # a class name may hold "$"
    _sharp_figures()
    if quiet():
        warnings.filterwarnings("ignore", message=".*IProgress not found.*")
    world = world or os.environ.get("COCOOP_WORLD") or "embedded"
    versions = package_versions()
    print("versions:", ", ".join(f"{p} {versions[p]}" for p in PACKAGES))
    print("device:  ", device_name())
    print("seed:    ", seed)
    print("world:   ", WORLDS.get(world, world))


def seed_everything(seed: int) -> None:
    """Seeds Python's, NumPy's and PyTorch's global generators."""
    seed = check_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # it takes no larger one
    torch.manual_seed(seed)


def _sharp_figures() -> None:
    """Doubles the pixels, for phones and high-resolution screens."""
    try:
        from matplotlib_inline.backend_inline import set_matplotlib_formats
    except ImportError:  # outside a notebook there is nothing to set
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        set_matplotlib_formats("retina", facecolor="white", bbox_inches="tight")


def show_source(*objects: Any, docstring: bool = True) -> None:
    """Shows the library's own source, so that the text and the library cannot disagree.

    Args:
        objects: Functions, classes or methods, in the order to show them.
        docstring: Whether to keep their docstrings.
    """
    for item in objects:
        display(Markdown(source_markdown(item, docstring)))


def source_markdown(item: Any, docstring: bool = True) -> str:
    """The source of a function or class as a Markdown code block, with its file below.

    Args:
        item: A function, class, method or property.
        docstring: Whether to keep the docstrings.
    """
    item = item.fget if isinstance(item, property) else inspect.unwrap(item)
    code = textwrap.dedent(inspect.getsource(item)).rstrip()
    if not docstring:
        code = _without_docstrings(code)
    file = Path(inspect.getsourcefile(item) or "")
    parts = file.parts[file.parts.index("cocoop_tutorial") :] if file.parts else ()
    return f"```python\n{code}\n```\n<small>from `{'/'.join(parts) or file.name}`</small>"


def _without_docstrings(code: str) -> str:
    lines = code.splitlines()
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    nodes = [node for node in ast.walk(ast.parse(code)) if isinstance(node, kinds)]
    drop: set[int] = set()
    for node in nodes:
        if ast.get_docstring(node) is None or len(node.body) == 1:
            continue  # a body that is only a docstring cannot be removed
        drop.update(range(node.body[0].lineno - 1, node.body[0].end_lineno or 0))
        after = node.body[0].end_lineno or 0
        if after < len(lines) and not lines[after].strip():
            drop.add(after)
    return "\n".join(line for i, line in enumerate(lines) if i not in drop)


def show_text(text: str, **values: Any) -> None:
    """Shows a paragraph of Markdown with computed numbers in it.

    Args:
        text: Markdown with `{name}` or `{name:.1f}` where numbers go.
        values: The numbers, by name. A text among them, such as a class name, may hold Markdown,
            but neither HTML nor formulas.
    """
    plain = {
        name: value.replace("<", "&lt;").replace("$", r"\$") if isinstance(value, str) else value
        for name, value in values.items()
    }
    display(Markdown(text.format(**plain)))


def cite_result(name: str) -> None:
    """Shows where the numbers of a stored result come from, in one small line.

    Args:
        name: File name in `results/`, without ".json".
    """
    display(Markdown(citation(name)))


def citation(name: str) -> str:
    """The provenance of a stored result as one line of Markdown."""
    p = load_result(name)["provenance"]
    seeds = f"; seeds {', '.join(map(str, p['seeds']))}" if p.get("seeds") else ""
    torch_version = p.get("versions", {}).get("torch", "?")
    return (
        f"<small>Recorded, not computed on this page: `results/{name}.json`, made by "
        f"`{p['command']}` on {p['device']} with torch {torch_version}{seeds}; "
        f"commit {p.get('commit') or 'unknown'}, {p.get('date', 'no date')}.</small>"
    )
