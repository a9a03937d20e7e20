"""What the packed encoder computes before it sees an image, from backbone and class list alone.

These constants are computed once, kept as long as the backbone and the class list, and computed
again when the backbone's weights have changed or moved (chapter 5).
"""

import warnings
from dataclasses import dataclass, fields
from itertools import pairwise
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from cocoop_tutorial.clip.frozen import FrozenCLIP
from cocoop_tutorial.clip.identity import fingerprint, text_weights
from cocoop_tutorial.text_encoder.packed.layout import Layout, build_layout
from cocoop_tutorial.text_encoder.packed.tower import PackedTower, unsupported_reason
from cocoop_tutorial.text_encoder.prompts import ClassPrompts

_towers: WeakKeyDictionary[FrozenCLIP, dict] = WeakKeyDictionary()
_lists: WeakKeyDictionary[ClassPrompts, "ClassList"] = WeakKeyDictionary()


@dataclass(frozen=True)
class PackedClasses:
    """Some classes as the tower reads them: G tiles of R tokens.

    Attributes:
        layout: Where each token stands.
        classes: `[k]`, which classes these are.
        words: `[G * R, D]`, embedded tokens plus positions; where the context goes, positions only.
        first: `[G * R, 3 D]`, the first layer's queries, keys and values, except the context's.
        mask: `[G, 1, R, P + R]`, 0 or minus infinity.
        end_mask: `[G, 1, Q, P + R]`, the same for the end tokens.
    """

    layout: Layout
    classes: Tensor
    words: Tensor
    first: Tensor
    mask: Tensor
    end_mask: Tensor


class ClassList:
    """A class list for one tower, cut into as many chunks as memory requires.

    Attributes:
        tower: The frozen text tower.
        prefix: Context vectors that all classes share.
        paths: The tokens of each class after the prefix, with context vectors as -1 - i.
    """

    def __init__(self, tower: PackedTower, prompts: ClassPrompts) -> None:
        """Reads the class names' tokens."""
        self.tower, self.prefix = tower, prompts.prefix
        self.paths = [sequence[1 + self.prefix :] for sequence in prompts.sequences]
        self.device = prompts.tokens.device
        self._chunks: tuple[list[PackedClasses], Tensor] = [], torch.arange(0)

    def __len__(self) -> int:
        """K."""
        return len(self.paths)

    def bytes_per_image(self, grad: bool) -> int:
        """Memory for one image with all classes, rounded up a little."""
        widths = 12 + 9 * len(self.tower.blocks) * grad  # in use; kept for backward
        tokens = self.prefix + sum(map(len, self.paths))
        return tokens * self.tower.width * self.tower.dtype.itemsize * widths

    def chunks(self, n: int) -> tuple[list[PackedClasses], Tensor]:
        """The classes in n chunks of about the same size; the last answer is remembered.

        Returns:
            The chunks, and `[K]`: the order that brings their features, one chunk after another,
            back to the order of the classes.
        """
        if len(self._chunks[0]) != n:
            ordered = list(range(len(self)))
            if n > 1:  # names that begin alike go into the same chunk
                ordered.sort(key=self.paths.__getitem__)
            cuts = [len(self) * i // n for i in range(n + 1)]
            # Not in inference mode even if the caller is, because the constants outlive it.
            with torch.inference_mode(False), torch.no_grad():
                chunks = [self._pack(ordered[a:b]) for a, b in pairwise(cuts)]
                self._chunks = chunks, torch.cat([c.classes for c in chunks]).argsort()
        return self._chunks

    def _pack(self, classes: list[int]) -> PackedClasses:
        paths = {k: self.paths[k] for k in classes}
        layout = build_layout(paths, self.prefix, self.tower.width)
        tensors = {
            f.name: value.to(self.device)
            for f in fields(layout)
            if isinstance(value := getattr(layout, f.name), Tensor)
        }
        layout = Layout(shape=layout.shape, prefix=layout.prefix, **tensors)
        words = self.tower.words(layout.tokens)  # [G * R, D]
        words[layout.slots] = 0
        words += self.tower.embed_positions(layout.positions)
        mask = torch.zeros(layout.sees.shape, dtype=self.tower.dtype, device=self.device)
        mask.masked_fill_(~layout.sees, float("-inf"))  # [G, R, P + R]
        end_mask = mask.flatten(0, 1)[layout.ends]  # [G * Q, P + R]
        end_mask = end_mask.view(len(mask), -1, mask.shape[-1])  # [G, Q, P + R]
        return PackedClasses(
            layout=layout,
            classes=torch.tensor(classes, device=self.device),
            words=words,
            first=self.tower.blocks[0].project(words),
            mask=mask.unsqueeze(1),
            end_mask=end_mask.unsqueeze(1),
        )


def packed_tower(clip: FrozenCLIP, prompts: ClassPrompts, dtype: torch.dtype) -> PackedTower | None:
    """The tower in the precision `dtype`; built again only if its weights have changed.

    Returns:
        None if the tower cannot be packed. A warning says why, once.
    """
    state = fingerprint(*text_weights(clip))
    towers = _towers.setdefault(clip, {})
    if dtype not in towers or towers[dtype][0] != state:
        if reason := unsupported_reason(clip):
            message = f"{clip.name} uses the published, slow text encoder, because {reason}."
            warnings.warn(message, stacklevel=5)
        with torch.inference_mode(False), torch.no_grad():
            start_token = prompts.sequences[0][0]
            towers[dtype] = state, None if reason else PackedTower(clip, start_token, dtype)
    return towers[dtype][1]


def class_list(tower: PackedTower, prompts: ClassPrompts) -> ClassList:
    """The class list's constants, computed once per tower."""
    classes = _lists.get(prompts)
    if classes is None or classes.tower is not tower:
        classes = _lists[prompts] = ClassList(tower, prompts)
    return classes
