"""Which tokens the packed encoder computes, and which of them see each other (chapter 5).

Nothing here touches a weight: it is bookkeeping over the class names, done once a class list.

Notation: K classes, M context tokens, P = prefix positions (the start token and the context tokens
that stand before every name), T tiles of R tokens each.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import product

import torch
from torch import Tensor

from cocoop_tutorial.text_encoder.prompts import ClassPrompts

TILE_SIZES = range(16, 65)  # R: small tiles waste less attention, large ones fewer places
ATTENTION_COST = 5.0  # small products run this much slower an operation than large ones
OPEN_TILES = 12  # where a class may go
SAMPLE = 150  # classes that choose the tile size


@dataclass
class Tile:
    """A few classes' tokens, side by side. Names that begin alike share those tokens (a trie).

    Attributes:
        keys: What each token is: an id of the vocabulary, or -1 - i for row i of the context.
        depths: How many tokens of its own prompt stand between the prefix and it.
        parents: The token before it, or -1 right behind the prefix.
        ends: Class -> its end token.
    """

    keys: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    ends: dict[int, int] = field(default_factory=dict)
    children: dict[tuple[int, int], int] = field(default_factory=dict)

    def missing(self, path: Sequence[int]) -> int:
        """How many tokens of `path` are not here yet."""
        node = -1
        for depth, key in enumerate(path):
            node = self.children.get((node, key))
            if node is None:
                return len(path) - depth
        return 0

    def add(self, path: Sequence[int], shared: bool = True) -> int:
        """Adds the tokens that are missing; returns the last token of `path`."""
        node = -1
        for depth, key in enumerate(path):
            child = self.children.get((node, key))
            if child is None:
                child = len(self.keys)
                self.keys.append(key)
                self.depths.append(depth)
                self.parents.append(node)
                if shared:
                    self.children[node, key] = child
            node = child
        return node

    def visible(self, size: int) -> Tensor:
        """`[size, size]`: a token sees itself and what stands before it in its own prompt."""
        sees = torch.eye(size, dtype=torch.bool)
        for i, parent in enumerate(self.parents):  # a parent always comes first
            if parent >= 0:
                sees[i] |= sees[parent]
        return sees


@dataclass(frozen=True)
class Layout:
    """Where each token of a list of classes stands in T tiles of R places.

    Attributes:
        shape: (T, R); N = T * R.
        prefix: Context tokens that all classes share; they are the first places of tile 0.
        tokens: `[N]` ids, 0 in the places of the context and in empty places.
        positions: `[N]`, where the token stands in its prompt.
        slots: `[C]`, the places of context vectors.
        rows: `[C]`, which context vector goes there: an index into `[M]` or `[K * M]`.
        sees: `[T, R, P + R]`, who attends to whom: the prefix, then the own tile.
        ends: `[T * Q]`, each tile's end tokens, padded with its first place.
        order: `[K]`, for each class its entry in `ends`.
    """

    shape: tuple[int, int]
    prefix: int
    tokens: Tensor
    positions: Tensor
    slots: Tensor
    rows: Tensor
    sees: Tensor
    ends: Tensor
    order: Tensor

    @property
    def size(self) -> int:
        """N = T * R: the places an image takes."""
        return self.tokens.numel()


def shared_prefix(prompts: ClassPrompts, class_specific: bool) -> int:
    """How many context tokens stand right behind the start token of every prompt.

    Args:
        prompts: The class names.
        class_specific: Each class has a context of its own, so nothing is shared.
    """
    if class_specific:
        return 0
    slots = prompts.context_slots.cpu()  # [K, M]
    in_front = (slots == torch.arange(1, slots.shape[1] + 1)).all(dim=0)  # [M]
    return int(in_front.long().cumprod(0).sum())


def token_paths(prompts: ClassPrompts, prefix: int, class_specific: bool) -> list[list[int]]:
    """For each class, the tokens behind the shared prefix, up to the end token.

    Returns:
        K lists of keys as in `Tile.keys`.
    """
    tokens, slots = prompts.tokens.cpu().clone(), prompts.context_slots.cpu()
    K, M = slots.shape
    rows = torch.arange(M).expand(K, M)
    if class_specific:
        rows = rows + M * torch.arange(K).unsqueeze(1)  # [K, M]
    tokens.scatter_(1, slots, -1 - rows)
    ends = prompts.end_positions.tolist()
    return [row[1 + prefix : end + 1] for row, end in zip(tokens.tolist(), ends, strict=True)]


def build_layout(paths: dict[int, list[int]], prefix: int, width: int) -> Layout:
    """Packs classes into tiles, with the tile size that costs least.

    Args:
        paths: Class -> its tokens behind the prefix, as `token_paths` makes them.
        prefix: Context tokens that all classes share.
        width: D, which weighs attention against the linear layers.

    Returns:
        The layout of these classes; class number i in it is the i-th key of `paths`.
    """
    alike = sorted(paths, key=lambda k: paths[k])  # names that begin alike are neighbours
    longest = max(prefix, *map(len, paths.values()))

    def order(classes: list[int], by_length: bool) -> list[tuple[int, list[int]]]:
        if by_length:  # short names fill the gaps that long ones leave
            classes = sorted(classes, key=lambda k: -len(paths[k]))
        return [(k, paths[k]) for k in classes]

    def cost(trial: tuple[bool, int]) -> float:
        by_length, size = trial
        tiles = fill_tiles(order(alike[:SAMPLE], by_length), prefix, max(size, longest))
        size = max(len(tile.keys) for tile in tiles)
        return len(tiles) * size * (1 + ATTENTION_COST * (prefix + size) / (6 * width))

    by_length, size = min(product((False, True), TILE_SIZES), key=cost)
    tiles = fill_tiles(order(alike, by_length), prefix, max(size, longest))
    return _as_tensors(tiles, list(paths), prefix)


def fill_tiles(paths: Iterable[tuple[int, list[int]]], prefix: int, size: int) -> list[Tile]:
    """Puts each class where fewest of its tokens are missing, among the last few tiles."""
    tiles = [Tile()]
    tiles[0].add([-1 - m for m in range(prefix)], shared=False)
    for k, path in paths:
        lacks = [(tile.missing(path), tile) for tile in tiles[-OPEN_TILES:]]
        fits = [pair for pair in lacks if len(pair[1].keys) + pair[0] <= size]
        if not fits:
            tiles.append(Tile())
            fits = [(len(path), tiles[-1])]
        # The fullest of them, so that no gap is left everywhere.
        _, tile = min(fits, key=lambda pair: (pair[0], -len(pair[1].keys)))
        tile.ends[k] = tile.add(path)
    return tiles


def _as_tensors(tiles: list[Tile], classes: list[int], prefix: int) -> Layout:
    T, R = len(tiles), max(len(tile.keys) for tile in tiles)
    Q = max(len(tile.ends) for tile in tiles)
    keys, positions = torch.zeros(T, R, dtype=torch.long), torch.zeros(T, R, dtype=torch.long)
    ends = (R * torch.arange(T)).unsqueeze(1).repeat(1, Q)  # [T, Q]
    sees = torch.ones(T, R, 1 + prefix + R, dtype=torch.bool)
    order = {}
    for t, tile in enumerate(tiles):
        n = len(tile.keys)
        keys[t, :n] = torch.tensor(tile.keys)
        positions[t, :n] = torch.tensor(tile.depths) + 1 + prefix
        sees[t, :, 1 + prefix :] = tile.visible(R)
        for i, (k, end) in enumerate(tile.ends.items()):
            ends[t, i], order[k] = t * R + end, t * Q + i
    positions[0, :prefix] = torch.arange(1, 1 + prefix)
    sees[0, :prefix, 1 : 1 + prefix] = False  # the prefix sees itself in its own tile
    keys, positions = keys.flatten(), positions.flatten()  # [N]
    slots = (keys < 0).nonzero().flatten()  # [C]
    return Layout(
        shape=(T, R),
        prefix=prefix,
        tokens=keys.clamp(min=0),
        positions=positions,
        slots=slots,
        rows=-1 - keys[slots],
        sees=sees,
        ends=ends.flatten(),
        order=torch.tensor([order[k] for k in classes]),
    )
