"""A box for your own prompt: what zero-shot CLIP answers with those words (chapter 1).

`prompt_box` works on the built page: the text features of some templates are computed ahead and
travel with it. `live_prompt_box` needs a kernel, and takes any words.
"""

import base64
import html
import json
import re
from collections.abc import Mapping, Sequence

import ipywidgets
import torch
from IPython.display import HTML
from torch import Tensor

from cocoop_tutorial.book.widgets import fill_page, picture
from cocoop_tutorial.clip.features import image_features
from cocoop_tutorial.datasets.splits import Split
from cocoop_tutorial.models.zero_shot import ZeroShotCLIP
from cocoop_tutorial.text_encoder.prompts import clean_name

TYPED, OTHER = "#D55E00", "#0072B2"  # the class in the prompt, and the other classes
SMALL_WORDS = frozenset("a an and in of on the with without".split())  # name no class
Bar = tuple[str, float, bool]  # label, share from 0 to 1, whether to highlight it


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation."""
    return re.findall(r"[a-z0-9']+", text.lower())


def find_class(text: str, names: Sequence[str]) -> int | None:
    """The class whose name a text holds: the longest one, whole names before parts of names.

    Args:
        text: What a reader typed.
        names: K class names.

    Returns:
        A position in `names`, or None if the text shares no word with any of them.
    """
    typed = set(words_of(text)) - SMALL_WORDS
    best, chosen = (0.0, 0), None
    for i, name in enumerate(names):
        own = [word for word in words_of(name) if word not in SMALL_WORDS]
        found = sum(word in typed for word in own)
        score = (found / max(1, len(own)), found)
        if found and score > best:
            best, chosen = score, i
    return chosen


def to_bytes(features: Tensor) -> str:
    """Rows of features as 8-bit integers in base64; cosines survive to about 0.001.

    Args:
        features: `[N, E]`.
    """
    rows = features.float().cpu()
    whole = (127 * rows / rows.abs().amax(dim=1, keepdim=True)).round().to(torch.int8)
    return base64.urlsafe_b64encode(whole.numpy().tobytes()).decode()


def prompt_box(
    models: Mapping[str, ZeroShotCLIP], split: Split, pictures: Sequence[int], start: str
) -> HTML:
    """A text box and pictures to choose from; the answer is computed in the browser.

    Args:
        models: Zero-shot classifiers of the same K classes, by template.
        split: Where the pictures come from.
        pictures: Positions in the split.
        start: The prompt in the box at first.

    Returns:
        Self-contained HTML with its own script.
    """
    model = next(iter(models.values()))
    names = [clean_name(name) for name in model.classnames]
    tags = [
        picture(split[i][0], f"Picture {n} to classify, chosen by this button", 64, 90)
        for n, i in enumerate(pictures, 1)
    ]
    buttons = "".join(
        f'<button type="button" aria-pressed="false" data-picture="{n}">{tag}</button>'
        for n, tag in enumerate(tags, 1)
    )
    # One suggestion per class: a list of all would be long, and the box takes any words.
    first = next(iter(models))
    listed = [t.format(names[0]) for t in models] + [first.format(name) for name in names]
    content = json.dumps(_content(models, split, list(pictures))).replace("<", "\\u003c")
    parts = {
        "BUTTONS": buttons,
        "OPTIONS": "".join(f'<option value="{html.escape(text)}">' for text in listed),
        "START": html.escape(start),
        "TYPED": TYPED,
        "OTHER": OTHER,
        "CONTENT": content,
    }
    return fill_page("prompt_box.html", parts)


def _content(
    models: Mapping[str, ZeroShotCLIP], split: Split, chosen: list[int]
) -> dict[str, object]:
    """What the page's script computes with."""
    model = next(iter(models.values()))
    features, labels = image_features(model.clip, split)
    weights = torch.cat([m.weights for m in models.values()])  # [templates * K, E]
    right = [m.logits_from_features(features).argmax(dim=1) == labels for m in models.values()]
    return {
        "names": [clean_name(name) for name in model.classnames],
        "templates": list(models),
        "labels": labels[chosen].tolist(),
        "small": sorted(SMALL_WORDS),
        "accuracy": [round(100 * hits.float().mean().item(), 1) for hits in right],
        "total": len(split),
        "scale": model.clip.logit_scale.item(),
        "width": weights.shape[1],
        "texts": to_bytes(weights),
        "images": to_bytes(features[chosen]),
    }


def bars_svg(rows: Sequence[Bar], alt: str) -> str:
    """Horizontal bars with labels, as an SVG picture on white.

    Args:
        rows: From top to bottom.
        alt: A sentence that says what can be seen.
    """
    parts = []
    for i, (label, share, stands_out) in enumerate(rows):
        y, colour = 26 * i + 6, TYPED if stands_out else OTHER
        parts.append(
            f'<text x="150" y="{y + 13}" text-anchor="end" fill="#222">{html.escape(label)}</text>'
            f'<rect x="158" y="{y}" width="{max(1.0, 190 * share):.1f}" height="17"'
            f' fill="{colour}"/>'
            f'<text x="{164 + 190 * share:.1f}" y="{y + 13}" fill="#222">{100 * share:.1f}%</text>'
        )
    return (
        f'<svg viewBox="0 0 400 {26 * len(rows) + 8}" role="img" aria-label="{html.escape(alt)}"'
        ' font-family="sans-serif" font-size="12.5" style="width: 30rem; max-width: 100%;'
        f' background: #fff; border-radius: 4px">{"".join(parts)}</svg>'
    )


def answer_rows(
    shares: Tensor, names: Sequence[str], truth: int, typed: int | None = None, top: int = 5
) -> list[Bar]:
    """The likeliest classes, and the one that was typed; the true class is marked "(true)".

    Args:
        shares: Probabilities `[K]`.
        names: K names.
        truth: The true class.
        typed: The class in the prompt, shown even if it is unlikely.
        top: Rows of likely classes.
    """
    order = shares.argsort(descending=True).tolist()
    shown = order[:top] + ([typed] if typed is not None and typed not in order[:top] else [])
    return [
        (names[k] + (" (true)" if k == truth else ""), shares[k].item(), k == typed) for k in shown
    ]


def live_prompt_box(model: ZeroShotCLIP, split: Split, pictures: Sequence[int]) -> ipywidgets.VBox:
    """The same box for any words; each change runs the text tower, so it needs a kernel.

    Args:
        model: A zero-shot classifier; the words in the box replace its own.
        split: Where the pictures come from.
        pictures: Positions in the split.
    """
    names = [clean_name(name) for name in model.classnames]
    features, labels = image_features(model.clip, split)
    options = [(f"{n}: {names[labels[i]]}", i) for n, i in enumerate(pictures, 1)]
    wide = {"description_width": "initial"}
    choose = ipywidgets.Dropdown(options=options, description="picture", style=wide)
    start = f"a photo of a {names[labels[pictures[0]]]}"
    text = ipywidgets.Text(start, description="your prompt", continuous_update=False, style=wide)
    answer = ipywidgets.HTML()

    def update(_: object = None) -> None:
        i = choose.value
        typed = find_class(text.value, names)
        template = None if typed is None else template_of(text.value, names[typed])
        classifier = ZeroShotCLIP(model.clip, model.classnames, template) if template else model
        extra = [] if template else [text.value]  # without a whole name: one more candidate
        shares = _shares(classifier, features[i], extra)
        shown = typed if template else len(names)
        rows = answer_rows(shares, [*names, *extra], int(labels[i]), shown)
        image = picture(split[i][0], "The picture that is being classified", 96, 90)
        answer.value = image + "<br>" + bars_svg(rows, f"The likeliest answer is {rows[0][0]}.")

    text.observe(update, "value")
    choose.observe(update, "value")
    update()
    return ipywidgets.VBox([text, choose, answer])


def template_of(text: str, name: str) -> str | None:
    """A text with a hole in place of a class name, or None if it does not hold the whole name.

    Args:
        text: What a reader typed.
        name: A class name.
    """
    plain = text.replace("{", "(").replace("}", ")")
    whole = rf"(?<!\w){re.escape(name)}(?!\w)"
    template, found = re.subn(whole, "{}", plain, count=1, flags=re.I)
    return template if found else None


def _shares(model: ZeroShotCLIP, feature: Tensor, extra: list[str]) -> Tensor:
    """Probabilities `[K + extra]` of the classes and of the extra texts."""
    weights = model.weights
    if extra:
        weights = torch.cat([weights, model.clip.encode_text(extra).to(weights.dtype)])
    return (model.clip.logit_scale * weights @ feature.to(weights.dtype)).softmax(dim=0).cpu()
