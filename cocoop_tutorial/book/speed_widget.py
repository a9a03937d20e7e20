"""The token counter of chapter 5: sliders that work on the built page, with no kernel."""

from IPython.display import HTML

_COUNTER = """
<div class="cocoop-interactive" id="token-counter" style="max-width: 36rem">
__SLIDERS__
<label>context length <select data-role="n" aria-label="positions of the text tower">
<option value="77" selected>77 (ViT-B/16)</option><option value="32">32 (emoji-clip)</option>
</select></label>
<svg viewBox="0 0 420 150" role="img" style="width: 100%; background: #fff; border-radius: 4px;
 margin-top: .5rem" font-family="sans-serif" font-size="12" aria-label="Three bars on a logarithmic
 axis: tokens that go through the text tower for one training step, as published, cut after the end
 token, and packed."><g data-role="g"></g></svg>
<p>The packed encoder sends <b data-role="ratio"></b> times fewer tokens, and saves
<b data-role="saved"></b> of every 100 tokens.</p>
<script>
(function () {
  var root = document.getElementById("token-counter");
  root.removeAttribute("id");
  var get = function (role) { return root.querySelector('[data-role="' + role + '"]'); };
  var ids = ["K", "B", "L", "M"], steps = __STEPS__;
  var draw = function () {
    var v = {}, N = +get("n").value;
    ids.forEach(function (id) {
      v[id] = steps[id][+get(id).value];
      get(id + "t").textContent = v[id];
    });
    var own = v.L + 2, P = 1 + v.M;  // the full stop and the end token come with each name
    var bars = [["published", v.B * v.K * N, "#595959"],
      ["cut after the end", v.B * v.K * Math.min(N, P + own), "#E69F00"],
      ["packed", v.B * (P + v.K * own), "#0072B2"]];
    var out = "", wide = function (t) { return 30 * Math.log10(Math.max(t, 1)); };
    bars.forEach(function (bar, i) {
      var y = 10 + 42 * i;
      out += '<text x="4" y="' + (y + 19) + '" fill="#222">' + bar[0] + "</text>";
      out += '<rect x="120" y="' + y + '" width="' + wide(bar[1]) + '" height="28" fill="' +
        bar[2] + '"/>';
      out += '<text x="' + (126 + wide(bar[1])) + '" y="' + (y + 19) + '" fill="#222">' +
        bar[1].toLocaleString("en") + "</text>";
    });
    for (var p = 0; p < 7; p += 2) {
      var at = 120 + 30 * p;
      out += '<text x="' + at + '" y="147" text-anchor="middle" fill="#555" font-size="10">' +
        Math.pow(10, p).toLocaleString("en") + "</text>";
    }
    get("g").innerHTML = out;
    get("ratio").textContent = (bars[0][1] / bars[2][1]).toFixed(1);
    get("saved").textContent = (100 * (1 - bars[2][1] / bars[0][1])).toFixed(0);
  };
  ids.concat("n").forEach(function (id) { get(id).addEventListener("input", draw); });
  draw();
})();
</script>
</div>
"""
# Role -> label, values, where the slider begins.
SLIDERS = {
    "K": ("classes K", [2, 5, 10, 20, 50, 100, 200, 500, 1000], 4),
    "B": ("images B", [1, 2, 4, 8, 16, 32], 0),
    "L": ("tokens of a name L", list(range(1, 11)), 1),
    "M": ("context tokens M", [1, 2, 4, 8, 16], 2),
}


def token_counter() -> HTML:
    """Tokens of one training step, published and packed, for sizes that the reader sets.

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
    steps = {role: values for role, (_, values, _) in SLIDERS.items()}
    text = _COUNTER.replace("__SLIDERS__", "\n".join(rows))
    return HTML(text.replace("__STEPS__", str(steps).replace("'", '"')))
