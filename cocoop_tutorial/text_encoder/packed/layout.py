"""Which tokens the packed encoder computes, and which of them see each other (chapter 5).

Nothing here reads a weight: it is bookkeeping on the class names, done once per class list.

Notation: K classes, M context tokens, P = prefix positions (the start token and the context tokens
that stand before every name), G tiles (groups of names) of R tokens each.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import product

import torch
from torch import Tensor

TILE_SIZES = range(16, 65)  # R: small tiles waste less attention, large ones fewer positions
ATTENTION_COST = 5.0  # an operation of a small product takes this much longer than of a large one
OPEN_TILES = 12  # the last tiles, which a class may still join
SAMPLE = 150  # classes on which tile sizes are tried


@dataclass
class Tile:
    """The tokens of a few classes. Names share the tokens that they begin with (a trie).

    Attributes:
        keys: What each token is: an id of the vocabulary, or -1 - i for row i of the context.
        depths: How many tokens of its own prompt stand between the prefix and the token.
        parents: The token before it, or -1 for the first one after the prefix.
        ends: Class -> its end token.
        children: (Token, or -1 for the prefix; key) -> the token with that key after it.
    """

    keys: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    ends: dict[int, int] = field(default_factory=dict)
    children: dict[tuple[int, int], int] = field(default_factory=dict)

    def missing(self, path: Sequence[int]) -> int:
        """How many tokens of `path` the tile does not have yet."""
        node = -1
        for depth, key in enumerate(path):
            node = self.children.get((node, key))
            if node is None:
                return len(path) - depth
        return 0

    def add(self, path: Sequence[int]) -> int:
        """Adds the tokens that are missing; returns the last token of `path`."""
        node = -1
        for depth, key in enumerate(path):
            child = self.children.get((node, key))
            if child is None:
                child = len(self.keys)
                self.keys.append(key)
                self.depths.append(depth)
                self.parents.append(node)
                self.children[node, key] = child
            node = child
        return node

    def visible(self, size: int) -> Tensor:
        """`[size, size]`: a token sees itself and the tokens before it in its own prompt."""
        sees = torch.eye(size, dtype=torch.bool)
        for i, parent in enumerate(self.parents):  # a parent always comes first
            if parent >= 0:
                sees[i] |= sees[parent]
        return sees


@dataclass(frozen=True)
class Layout:
    """Where each token of a list of classes stands in G tiles of R tokens.

    Attributes:
        shape: (G, R).
        prefix: Context tokens that all classes share; they come first in tile 0.
        tokens: `[G * R]` ids, 0 where the context goes and where nothing is.
        positions: `[G * R]`, the token's position in its prompt.
        slots: `[C]`, where context vectors go: indices into `tokens`.
        rows: `[C]`, which context vector goes there: indices into `[M]` or `[K * M]`.
        sees: `[G, R, P + R]`, which tokens attend to which: the prefix, then their own tile.
        ends: `[G * Q]`, each tile's end tokens, padded with its first token.
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


def build_layout(paths: dict[int, list[int]], prefix: int, width: int) -> Layout:
    """Packs classes into tiles of the size that costs least.

    Args:
        paths: Class -> its tokens after the prefix, with context vectors as -1 - i.
        prefix: Context tokens that all classes share.
        width: D, which weighs attention against the linear layers.

    Returns:
        The layout of these classes; class number i in it is the i-th key of `paths`.
    """
    alike = sorted(paths, key=lambda k: paths[k])  # names with a common beginning are neighbours
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
    """Puts each class into the one of the last few tiles that lacks fewest of its tokens."""
    tiles = [Tile()]
    tiles[0].add([-1 - m for m in range(prefix)])
    for k, path in paths:
        lacks = [(tile.missing(path), tile) for tile in tiles[-OPEN_TILES:]]
        fits = [pair for pair in lacks if len(pair[1].keys) + pair[0] <= size]
        if not fits:
            tiles.append(Tile())
            fits = [(len(path), tiles[-1])]
        # Of these, the fullest one, so that gaps do not remain in all tiles.
        _, tile = min(fits, key=lambda pair: (pair[0], -len(pair[1].keys)))
        tile.ends[k] = tile.add(path)
    return tiles


def _as_tensors(tiles: list[Tile], classes: list[int], prefix: int) -> Layout:
    G, R = len(tiles), max(len(tile.keys) for tile in tiles)
    Q = max(len(tile.ends) for tile in tiles)
    keys, positions = torch.zeros(G, R, dtype=torch.long), torch.zeros(G, R, dtype=torch.long)
    ends = (R * torch.arange(G)).unsqueeze(1).repeat(1, Q)  # [G, Q]
    sees = torch.ones(G, R, 1 + prefix + R, dtype=torch.bool)
    order = {}
    for t, tile in enumerate(tiles):
        n = len(tile.keys)
        keys[t, :n] = torch.tensor(tile.keys)
        positions[t, :n] = torch.tensor(tile.depths) + 1 + prefix
        sees[t, :, 1 + prefix :] = tile.visible(R)
        for i, (k, end) in enumerate(tile.ends.items()):
            ends[t, i], order[k] = t * R + end, t * Q + i
    positions[0, :prefix] = torch.arange(1, 1 + prefix)
    sees[0, :prefix, 1 : 1 + prefix] = False  # in tile 0 the prefix sees itself already
    keys, positions = keys.flatten(), positions.flatten()  # [G * R]
    slots = (keys < 0).nonzero().flatten()  # [C]
    return Layout(
        shape=(G, R),
        prefix=prefix,
        tokens=keys.clamp(min=0),
        positions=positions,
        slots=slots,
        rows=-1 - keys[slots],
        sees=sees,
        ends=ends.flatten(),
        order=torch.tensor([order[k] for k in classes]),
    )
