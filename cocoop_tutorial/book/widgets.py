"""Interactive figures that need no kernel and no server, so they work on the built page.

Pictures are made once; a control then chooses in the browser which of them is shown.
"""

import base64
import html
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path

import ipywidgets
from IPython.display import HTML
from matplotlib.figure import Figure
from PIL import Image

from cocoop_tutorial.book.plots import BASE, NEW


def picture(
    image: Image.Image | Figure, alt: str, width: int | None = None, quality: int = 82
) -> str:
    """An image as an HTML tag that carries its own data.

    Args:
        image: An RGB picture or a figure; it is stored as a JPEG.
        alt: A sentence that says what can be seen.
        width: Greatest width on the page in pixels; None takes the image's own.
        quality: Of the JPEG.
    """
    buffer = io.BytesIO()
    if isinstance(image, Figure):
        image.savefig(buffer, format="jpeg", dpi=150, pil_kwargs={"quality": quality})
        width = width or round(100 * image.get_figwidth())
    else:
        image.save(buffer, "JPEG", quality=quality)
        width = width or image.width
    data = base64.b64encode(buffer.getvalue()).decode()
    style = f"width: 100%; max-width: {width}px; height: auto; background: #fff"
    return f'<img alt="{html.escape(alt)}" style="{style}" src="data:image/jpeg;base64,{data}">'


def flip_book(
    books: Mapping[str, Mapping[str, str]], slider: str, buttons: str, start: str | None = None
) -> ipywidgets.VBox:
    """A slider that turns pages, and buttons that choose the book.

    Args:
        books: Button to pages; pages are HTML by the slider's value, the same values in each book.
        slider: Label of the slider.
        buttons: Label of the buttons.
        start: The value at which it opens; None takes the first.

    Returns:
        A widget; its links run in the browser, so it works on the built page too.
    """
    values = list(next(iter(books.values())))
    first = values.index(start) if start else 0
    wide = {"description_width": "initial"}
    turn = ipywidgets.SelectionSlider(options=values, index=first, description=slider, style=wide)
    choose = ipywidgets.ToggleButtons(options=list(books), description=buttons, style=wide)
    choose.style.button_width = f"{2.5 + 0.7 * max(map(len, books)):.1f}em"  # or "base" is cut off
    stacks = []
    for pages in books.values():
        stack = ipywidgets.Stack([ipywidgets.HTML(pages[v]) for v in values], selected_index=first)
        ipywidgets.jsdlink((turn, "index"), (stack, "selected_index"))
        stacks.append(stack)
    shelf = ipywidgets.Stack(stacks, selected_index=0)
    ipywidgets.jsdlink((choose, "index"), (shelf, "selected_index"))
    return ipywidgets.VBox([turn, choose, shelf])


def harmonic_ladders(presets: Mapping[str, tuple[float, float]]) -> HTML:
    """The harmonic mean as the crossing of two ladders; two sliders set base and new accuracy.

    Args:
        presets: Label to (base, new) in percent; each becomes a button, the first is shown.

    Returns:
        Self-contained HTML with its own script.
    """
    base, new = next(iter(presets.values()))
    buttons = " ".join(
        f'<button type="button" data-b="{b}" data-n="{n}">{html.escape(label)}</button>'
        for label, (b, n) in presets.items()
    )
    colours = {"BASE": BASE, "NEW": NEW}
    return fill_page("ladders.html", {"BUTTONS": buttons, "B": str(base), "N": str(new)} | colours)


# Role -> label, values, where the slider begins.
SLIDERS = {
    "K": ("classes K", [2, 5, 10, 20, 50, 100, 200, 500, 1000], 4),
    "B": ("images B", [1, 2, 4, 8, 16, 32], 0),
    "L": ("tokens of a name L", list(range(1, 11)), 1),
    "M": ("context tokens M", [1, 2, 4, 8, 16], 2),
}


def token_counter() -> HTML:
    """Tokens of a training step, published and packed, for sizes that the reader sets.

    Returns:
        Self-contained HTML with its own script.
    """
    rows = [
        f'<label>{label} <input type="range" min="0" max="{len(values) - 1}" step="1" '
        f'value="{first}" data-role="{role}" aria-label="{label}" '
        f'style="width: 10rem; vertical-align: middle"></label> '
        f'<output data-role="{role}t"></output><br>'
        for role, (label, values, first) in SLIDERS.items()
    ]
    steps = json.dumps({role: values for role, (_, values, _) in SLIDERS.items()})
    return fill_page("token_counter.html", {"SLIDERS": "\n".join(rows), "STEPS": steps})


def fill_page(name: str, parts: Mapping[str, str]) -> HTML:
    """One of this folder's HTML files with its marks, `__NAME__`, replaced.

    All marks are replaced in one pass, so a class name that looks like a mark stays a class name.

    Args:
        name: A file beside this module.
        parts: Name of a mark to its text.
    """
    page = Path(__file__).with_name(name).read_text(encoding="utf-8")
    return HTML(re.sub(r"__([A-Z]+)__", lambda mark: parts[mark[1]], page))
