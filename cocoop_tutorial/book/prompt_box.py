"""A box for your own prompt: what zero-shot CLIP answers with those words (chapter 1).

`prompt_box` works on the built page. It holds the text features of some templates, so it can
answer exactly the prompts made from them; of other words it says that it has not encoded them.
`live_prompt_box` needs a kernel, and answers any words.
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
from cocoop_tutorial.classnames import clean_name
from cocoop_tutorial.clip.features import image_features
from cocoop_tutorial.datasets.splits import Split
from cocoop_tutorial.errors import PromptError
from cocoop_tutorial.models.zero_shot import ZeroShotCLIP
from cocoop_tutorial.text_encoder.prompts import fill_template

TYPED, OTHER = "#D55E00", "#0072B2"  # the class in the prompt, and the other classes
Bar = tuple[str, float, bool]  # label, share from 0 to 1, whether to highlight it


def as_read(text: str) -> str:
    """A text as CLIP's tokenizer reads it: capitals and extra blanks make no difference.

    Args:
        text: What a reader typed.
    """
    return " ".join(text.lower().split())


def known_prompts(templates: Sequence[str], names: Sequence[str]) -> list[str]:
    """Every prompt that the built page can answer, as it is read.

    Args:
        templates: T texts with one `{}`.
        names: K class names.

    Returns:
        T * K prompts; that of template t and class k is number t * K + k.
    """
    return [as_read(text) for template in templates for text in fill_template(template, names)]


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

    Words other than the templates' get no answer, but the offer of the nearest known prompt.

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
    # Each class once, each template once: a list of all would be long.
    first = next(iter(models))
    listed = [*fill_template(first, names), *(t.format(names[0]) for t in models)]
    content = json.dumps(_content(models, split, list(pictures))).replace("<", "\\u003c")
    parts = {
        "BUTTONS": buttons,
        "OPTIONS": "".join(
            f'<option value="{html.escape(text)}">' for text in dict.fromkeys(listed)
        ),
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
    names = [clean_name(name) for name in model.classnames]
    features, labels = image_features(model.clip, split)
    weights = torch.cat([m.weights for m in models.values()])  # [templates * K, E]
    right = [m.logits_from_features(features).argmax(dim=1) == labels for m in models.values()]
    return {
        "names": names,
        "templates": list(models),
        "prompts": known_prompts(list(models), names),
        "labels": labels[chosen].tolist(),
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
        image = picture(split[choose.value][0], "The picture that is being classified", 96, 90)
        try:
            rows = _live_rows(model, text.value, features[choose.value], labels[choose.value])
            told = bars_svg(rows, f"The likeliest answer is {rows[0][0]}.")
        except PromptError as error:  # such as words too many
            told = html.escape(str(error))
        answer.value = f"{image}<br>{told}"

    text.observe(update, "value")
    choose.observe(update, "value")
    update()
    return ipywidgets.VBox([text, choose, answer])


def _live_rows(model: ZeroShotCLIP, text: str, feature: Tensor, truth: Tensor) -> list[Bar]:
    """What the words of a text make of one image; without a whole name they join the classes."""
    names = [clean_name(name) for name in model.classnames]
    typed = find_class(text, names)
    if typed is None:
        shares = _shares(model, feature, [text])
        return answer_rows(shares, [*names, text], int(truth), len(names))
    template = template_of(text, names[typed])
    shares = _shares(ZeroShotCLIP(model.clip, model.classnames, template), feature, [])
    return answer_rows(shares, names, int(truth), typed)


def find_class(text: str, names: Sequence[str]) -> int | None:
    """The class whose whole name stands in a text: of several the longest.

    Args:
        text: What a reader typed.
        names: K class names.

    Returns:
        A position in `names`, or None if the text holds none of them.
    """
    found = [i for i, name in enumerate(names) if template_of(text, name)]
    return max(found, key=lambda i: len(names[i]), default=None)


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
