"""Reading learned context vectors as words, with a control to judge that by (chapter 3)."""

import pandas as pd
import torch
from torch import Tensor

from cocoop_tutorial.clip.frozen import FrozenCLIP
from cocoop_tutorial.seeds import check_seed


def nearest_words(clip: FrozenCLIP, vectors: Tensor, count: int = 5) -> pd.DataFrame:
    """The tokens whose embeddings are nearest to each vector, by Euclidean distance.

    Tokens that did not occur in pretraining have an embedding of zeros; they are left out.

    Args:
        clip: The backbone.
        vectors: `[M, D]`, context vectors.
        count: Tokens per vector.

    Returns:
        One row per vector and token: `vector` (from 1), `rank`, `word`, `distance`.
        CoOp (2109.01134), section 4.4. Introduced in chapter 3.
    """
    table = clip.text_tower.token_embedding.weight.detach().to(vectors.dtype)  # [V, D]
    known = table.norm(dim=1).gt(0).nonzero().flatten()
    distances, places = torch.cdist(vectors.detach(), table[known]).topk(count, largest=False)
    rows = [
        {"vector": m + 1, "rank": r + 1, "word": _word(clip, known[at]), "distance": float(far)}
        for m in range(len(vectors))
        for r, (at, far) in enumerate(zip(places[m], distances[m], strict=True))
    ]
    return pd.DataFrame(rows)


def _word(clip: FrozenCLIP, token: Tensor) -> str:
    return clip.tokenizer.decode([int(token)]).strip()


def random_like(vectors: Tensor, seed: int = 1) -> Tensor:
    """Vectors `[M, D]` of random direction, each as long as the one that it replaces."""
    generator = torch.Generator().manual_seed(check_seed(seed))
    drawn = torch.randn(vectors.shape, generator=generator).to(vectors)
    lengths = vectors.detach().norm(dim=-1, keepdim=True)
    return drawn * lengths / drawn.norm(dim=-1, keepdim=True)
