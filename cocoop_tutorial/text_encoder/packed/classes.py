"""What the packed encoder knows before it sees an image: constants of backbone and class list.

They are computed once, kept while the backbone or the class list lives, and computed again when
the backbone's weights have changed or moved (chapter 5).
"""

import warnings
from dataclasses import dataclass, fields
from itertools import pairwise
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from cocoop_tutorial.clip.frozen import FrozenCLIP
from cocoop_tutorial.text_encoder.packed.layout import (
    Layout,
    build_layout,
    shared_prefix,
    token_paths,
)
from cocoop_tutorial.text_encoder.packed.tower import PackedTower, obstacle
from cocoop_tutorial.text_encoder.prompts import ClassPrompts

_towers: WeakKeyDictionary[FrozenCLIP, dict] = WeakKeyDictionary()
_lists: WeakKeyDictionary[ClassPrompts, "ClassList"] = WeakKeyDictionary()


@dataclass(frozen=True)
class Names:
    """Some classes as the tower reads them.

    Attributes:
        layout: Where each token stands.
        classes: `[k]`, which classes these are.
        words: `[N, D]`, embedded tokens with their positions; for the context, positions only.
        first: `[N, 3 D]`, the first layer's queries, keys and values, the context's left open.
        mask: `[T, 1, R, P + R]`, 0 or minus infinity.
        end_mask: `[T, 1, Q, P + R]`, the same for the end tokens.
    """

    layout: Layout
    classes: Tensor
    words: Tensor
    first: Tensor
    mask: Tensor
    end_mask: Tensor


class ClassList:
    """A class list for one tower, cut into as many parts as memory asks for.

    Attributes:
        tower: The frozen text tower.
        paths: The tokens of each class behind the shared prefix.
        prefix: Context tokens that all classes share.
        specific: Each class has a context of its own.
        order: `[K]`, brings the parts' features, one part after another, back to the list's order.
    """

    def __init__(self, tower: PackedTower, prompts: ClassPrompts, specific: bool) -> None:
        """Reads the class names' tokens."""
        self.tower, self.specific = tower, specific
        self.prefix = shared_prefix(prompts, specific)
        self.paths = token_paths(prompts, self.prefix, specific)
        self.device = prompts.tokens.device
        self._parts: list[Names] = []
        self.order = torch.arange(len(self.paths))

    def __len__(self) -> int:
        """K."""
        return len(self.paths)

    def bytes_per_image(self, grad: bool) -> int:
        """Memory for one image with all classes, a little on the safe side."""
        widths = 12 + 9 * len(self.tower.blocks) * grad  # at work; kept for backward
        places = self.prefix + sum(map(len, self.paths))
        return places * self.tower.width * self.tower.dtype.itemsize * widths

    def parts(self, n: int) -> list[Names]:
        """The classes in n parts of about the same size; the last answer is remembered."""
        if len(self._parts) != n:
            ordered = sorted(range(len(self)), key=self.paths.__getitem__)  # names alike together
            cuts = [len(self) * i // n for i in range(n + 1)]
            groups = [ordered[a:b] for a, b in pairwise(cuts)]
            if n == 1:
                groups = [range(len(self))]
            # Not in inference mode even if the caller is: the constants outlive it.
            with torch.inference_mode(False), torch.no_grad():
                self._parts = [self._names(list(group)) for group in groups]
                self.order = torch.cat([part.classes for part in self._parts]).argsort()
        return self._parts

    def _names(self, classes: list[int]) -> Names:
        paths = {k: self.paths[k] for k in classes}
        layout = build_layout(paths, self.prefix, self.tower.width)
        tensors = {
            f.name: value.to(self.device)
            for f in fields(layout)
            if isinstance(value := getattr(layout, f.name), Tensor)
        }
        layout = Layout(shape=layout.shape, prefix=layout.prefix, **tensors)
        words = self.tower.words(layout.tokens)  # [N, D]
        words[layout.slots] = 0
        words += self.tower.places(layout.positions)
        mask = torch.zeros(layout.sees.shape, dtype=self.tower.dtype, device=self.device)
        mask.masked_fill_(~layout.sees, float("-inf"))  # [T, R, P + R]
        end_mask = mask.flatten(0, 1)[layout.ends]  # [T * Q, P + R]
        end_mask = end_mask.view(len(mask), -1, mask.shape[-1])  # [T, Q, P + R]
        return Names(
            layout=layout,
            classes=torch.tensor(classes, device=self.device),
            words=words,
            first=self.tower.blocks[0].project(words),
            mask=mask.unsqueeze(1),
            end_mask=end_mask.unsqueeze(1),
        )


def packed_tower(clip: FrozenCLIP, prompts: ClassPrompts, dtype: torch.dtype) -> PackedTower | None:
    """The tower in the precision `dtype`, from memory if its weights are the same as then.

    Returns:
        None if the tower cannot be packed; a warning says why, once.
    """
    state = tuple(map(_version, text_parameters(clip)))
    towers = _towers.setdefault(clip, {})
    if dtype not in towers or towers[dtype][0] != state:
        if reason := obstacle(clip):
            message = f"{clip.name} takes the published, slow text encoder: {reason}."
            warnings.warn(message, stacklevel=5)
        with torch.inference_mode(False), torch.no_grad():
            start_token = int(prompts.tokens[0, 0])
            towers[dtype] = state, None if reason else PackedTower(clip, start_token, dtype)
    return towers[dtype][1]


def class_list(tower: PackedTower, prompts: ClassPrompts, context: Tensor) -> ClassList:
    """The class list's constants, from memory if tower and kind of context are the same.

    Args:
        tower: The frozen text tower.
        prompts: The class names.
        context: `[B, K or 1, M, D]`, of which only K or 1 counts.
    """
    specific = context.shape[1] > 1
    names = _lists.get(prompts)
    if names is None or names.tower is not tower or names.specific != specific:
        names = _lists[prompts] = ClassList(tower, prompts, specific)
    return names


def text_parameters(clip: FrozenCLIP) -> list[Tensor]:
    """The text tower's weights, without the image tower's where one module holds both."""
    tower = clip.text_tower
    modules = [tower.token_embedding, tower.transformer, tower.ln_final]
    if isinstance(tower.text_projection, torch.nn.Module):
        modules.append(tower.text_projection)
    weights = [p for module in modules for p in module.parameters()]
    own = [tower.positional_embedding, tower.text_projection]
    return weights + [p for p in own if isinstance(p, Tensor)]


def _version(weight: Tensor) -> tuple[int, int, bool]:
    """Changes when a weight is replaced, moved, written to in place, or set free to train."""
    version = 0 if weight.is_inference() else weight._version
    return weight.data_ptr(), version, weight.requires_grad
