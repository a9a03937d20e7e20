"""How well the towers name drawings that were held out of their training."""

from dataclasses import dataclass

import numpy as np
import torch

from cocoop_tutorial.pretraining.augment import plain
from cocoop_tutorial.pretraining.captions import SUBJECTS, Captions, fill, pool_subjects
from cocoop_tutorial.pretraining.corpus import Corpus
from cocoop_tutorial.pretraining.model import Towers

EMOJI_TEMPLATE, ICON_TEMPLATE = "an emoji of a {}", "an icon of a {}"
# Sensible ways to ask for a name, of which `by_template` compares what they are worth.
TEMPLATES = (
    "{}", "a {}.", "a photo of a {}.", "a picture of a {}.", "a drawing of a {}.",
    "an icon of a {}.", "a {} symbol.", "an emoji of a {}.", "an outline icon of a {}.",
    "a solid icon of a {}.", "a {}, a type of {subject}.", "an icon of a {}, {subject}.",
)  # fmt: skip
LEAST_CLASSES = 15  # of a subject that templates are compared on


@dataclass
class Validation:
    """Held-out drawings and the names to choose from, all fixed before training."""

    towers: Towers
    captions: Captions
    corpus: Corpus
    device: str
    most: int = 2000  # drawings that are looked at

    def __post_init__(self) -> None:
        drawings, held = self.corpus.drawings, self.corpus.held_out
        emoji = np.array(["emoji" in d.medium for d in drawings])
        self.concept = self.captions.concept.cpu().numpy()
        held = np.random.default_rng(0).permutation(held)
        self.rows = {
            "emoji": held[emoji[held]][: self.most],
            "icon": held[~emoji[held]][: self.most],
        }
        houses: dict[int, set[str]] = {}
        for row in np.flatnonzero(~emoji):
            houses.setdefault(self.concept[row], set()).add(drawings[row].house)
        self.names = {
            "emoji": np.unique(self.concept[emoji]),
            "icon": np.array(sorted(c for c, drawn_by in houses.items() if len(drawn_by) > 1)),
        }
        self.names["icon"] = np.union1d(self.names["icon"], self.concept[self.rows["icon"]])

    @torch.no_grad()
    def text(self, names: np.ndarray, template: str) -> torch.Tensor:
        """Features [K, E] of names in a template."""
        texts = [fill(template, self.captions.concept_names[i]) for i in names]
        tokens = self.captions.compact(texts).to(self.device)
        ends = (tokens == self.captions.end).int().argmax(1)
        parts = zip(tokens.split(512), ends.split(512), strict=True)
        return torch.cat([self.towers.text(part, at) for part, at in parts])

    @torch.no_grad()
    def image(self, rows: np.ndarray) -> torch.Tensor:
        """Features [N, E] of drawings on white."""
        at = torch.from_numpy(rows).to(self.device)
        picked = (self.corpus.pixels.pick(part) for part in at.split(512))
        return torch.cat([self.towers.image(plain(rgba)) for rgba in picked])

    def hits(self, f: torch.Tensor, rows: np.ndarray, names: np.ndarray, template: str) -> float:
        """Zero-shot top-1 (%) of image features [N, E], with `names` as the classes."""
        found = names[(f @ self.text(names, template).T).argmax(1).cpu().numpy()]
        return 100 * float((found == self.concept[rows]).mean())

    def __call__(self) -> dict[str, float]:
        """Zero-shot top-1 (%) on held-out emoji and icons, of all emoji and of all shared icons."""
        self.towers.eval()
        templates = {"emoji": EMOJI_TEMPLATE, "icon": ICON_TEMPLATE}
        return {
            kind: self.hits(self.image(rows), rows, self.names[kind], templates[kind])
            for kind, rows in self.rows.items()
            if len(rows)
        }

    def by_template(self) -> dict[str, dict[str, float]]:
        """Zero-shot top-1 (%) on held-out icons of each subject, by template."""
        self.towers.eval()
        rows, subjects = self.rows["icon"], pool_subjects(self.corpus.drawings)
        f, found = self.image(rows), {}
        for subject in SUBJECTS:
            mine = np.array([subject in subjects[row] for row in rows], dtype=bool)
            names = np.unique(self.concept[rows[mine]])
            if len(names) >= LEAST_CLASSES:
                some = f[torch.from_numpy(mine).to(self.device)]
                found[subject] = {
                    template: self.hits(
                        some, rows[mine], names, template.replace("{subject}", subject)
                    )
                    for template in TEMPLATES
                }
        return found
