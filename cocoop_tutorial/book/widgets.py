"""Interactive figures that need no kernel and no server: they work on the built page.

Pictures are made once; a control then chooses which of them is shown, in the browser.
"""

import base64
import html
import io
from collections.abc import Mapping

import ipywidgets
from IPython.display import HTML
from PIL import Image

from cocoop_tutorial.book.plots import BASE, NEW


def picture(image: Image.Image, alt: str, width: int | None = None, quality: int = 82) -> str:
    """An image as an HTML tag that carries its own data.

    Args:
        image: RGB; it is stored as a JPEG.
        alt: A sentence that says what can be seen.
        width: Greatest width on the page in pixels; None takes the image's own.
        quality: Of the JPEG.
    """
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    data = base64.b64encode(buffer.getvalue()).decode()
    style = f"width: 100%; max-width: {width or image.width}px; height: auto; background: #fff"
    return f'<img alt="{html.escape(alt)}" style="{style}" src="data:image/jpeg;base64,{data}">'


def flip_book(books: Mapping[str, Mapping[str, str]], slider: str, buttons: str) -> ipywidgets.VBox:
    """A slider that turns pages, and buttons that choose the book.

    Args:
        books: Button to pages; pages are HTML by the slider's value, the same values in each book.
        slider: Label of the slider.
        buttons: Label of the buttons.

    Returns:
        A widget; its links run in the browser, so it works on the built page too.
    """
    values = list(next(iter(books.values())))
    wide = {"description_width": "initial"}
    turn = ipywidgets.SelectionSlider(options=values, description=slider, style=wide)
    choose = ipywidgets.ToggleButtons(options=list(books), description=buttons, style=wide)
    choose.style.button_width = "3.5em"
    stacks = []
    for pages in books.values():
        stack = ipywidgets.Stack([ipywidgets.HTML(pages[v]) for v in values], selected_index=0)
        ipywidgets.jsdlink((turn, "index"), (stack, "selected_index"))
        stacks.append(stack)
    shelf = ipywidgets.Stack(stacks, selected_index=0)
    ipywidgets.jsdlink((choose, "index"), (shelf, "selected_index"))
    return ipywidgets.VBox([turn, choose, shelf])


# Two walls as high as the accuracies, a ladder from the top of each to the foot of the other:
# the ladders cross at half of the harmonic mean.
_LADDERS = """
<div class="cocoop-interactive" id="ladders" style="max-width: 34rem">
<label>base <input type="range" min="0" max="100" step="0.1" value="__B__" data-role="b"
 aria-label="accuracy on base classes" style="width: 12rem; vertical-align: middle"></label>
<output data-role="bt"></output><br>
<label>new <input type="range" min="0" max="100" step="0.1" value="__N__" data-role="n"
 aria-label="accuracy on new classes" style="width: 12rem; vertical-align: middle"></label>
<output data-role="nt"></output>
<p style="margin: .4rem 0">__BUTTONS__</p>
<svg viewBox="0 0 400 232" role="img" style="width: 100%; background: #fff; border-radius: 4px"
 font-family="sans-serif" font-size="12" aria-label="Two walls, as high as the accuracies on base
 and on new classes. Ladders run from the top of each wall to the foot of the other, and cross at
 half of the harmonic mean."><g data-role="g"></g></svg>
<p>arithmetic mean <b data-role="am"></b>, harmonic mean <b data-role="hm"></b></p>
<script>
(function () {
  var root = document.getElementById("ladders");
  root.removeAttribute("id");
  var get = function (role) { return root.querySelector('[data-role="' + role + '"]'); };
  var left = 70, right = 330, foot = 210, tall = 1.9;
  var up = function (a) { return foot - tall * a; };
  var line = function (x1, y1, x2, y2, more) {
    return '<line x1="' + x1 + '" y1="' + y1 + '" x2="' + x2 + '" y2="' + y2 + '" ' + more + "/>";
  };
  var word = function (x, y, text, more) {
    return '<text x="' + x + '" y="' + y + '" ' + (more || "") + ">" + text + "</text>";
  };
  var now = {b: __B__, n: __N__};  // exact, while the sliders stand at the nearest tenth
  var draw = function () {
    var b = now.b, n = now.n;
    var mean = (b + n) / 2, h = b + n > 0 ? 2 * b * n / (b + n) : 0;
    var cross = left + (right - left) * (b + n > 0 ? b / (b + n) : 0.5);
    var half = (left + right) / 2, dash = 'stroke="#555" stroke-dasharray="2 3"', out = "";
    for (var a = 0; a <= 100; a += 25) {
      out += line(40, up(a), 360, up(a), 'stroke="#ddd"');
      out += word(34, up(a) + 4, a, 'text-anchor="end" fill="#333"');
    }
    out += line(left, foot, left, up(b), 'stroke="__BASE__" stroke-width="9"');
    out += line(right, foot, right, up(n), 'stroke="__NEW__" stroke-width="9"');
    out += line(left, up(b), right, foot, 'stroke="#8a5a00" stroke-width="2"');
    out += line(right, up(n), left, foot, 'stroke="#8a5a00" stroke-width="2"');
    out += line(left, up(b), right, up(n), dash) + line(cross, foot, cross, up(h), dash);
    out += '<circle cx="' + cross + '" cy="' + up(h / 2) + '" r="4" fill="#8a5a00"/>';
    out += '<circle cx="' + half + '" cy="' + up(mean) + '" r="5" fill="#555"/>';
    out += '<circle cx="' + cross + '" cy="' + up(h) + '" r="6" fill="#0072B2"/>';
    out += word(half + (b < n ? -8 : 8), up(mean) - 8, "arithmetic mean",
      'text-anchor="' + (b < n ? "end" : "start") + '" fill="#333"');
    out += word(cross + 9, up(h) + 14, "H", 'font-weight="bold" fill="#005a8f"');
    out += word(left, 226, "base", 'text-anchor="middle" fill="#222"');
    out += word(right, 226, "new", 'text-anchor="middle" fill="#222"');
    get("g").innerHTML = out;
    get("bt").textContent = b.toFixed(1); get("nt").textContent = n.toFixed(1);
    get("am").textContent = mean.toFixed(1); get("hm").textContent = h.toFixed(1);
  };
  ["b", "n"].forEach(function (role) {
    get(role).addEventListener("input", function () { now[role] = +this.value; draw(); });
  });
  root.querySelectorAll("button").forEach(function (button) {
    button.addEventListener("click", function () {
      now = {b: +button.dataset.b, n: +button.dataset.n};
      get("b").value = now.b; get("n").value = now.n; draw();
    });
  });
  draw();
})();
</script>
</div>
"""


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
    text = _LADDERS.replace("__BUTTONS__", buttons).replace("__B__", str(base))
    return HTML(text.replace("__N__", str(new)).replace("__BASE__", BASE).replace("__NEW__", NEW))
