"""A frozen text tower as the packed encoder runs it (chapter 5).

The weights never train, so backward needs gradients of inputs only, and a linear layer keeps
nothing for it.

Notation: D, E = text, joint width, H heads.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from torch import Tensor, nn
from torch.nn import functional as F

from .frozen_clip import FrozenCLIP
from .truncated import is_causal

# x86 CPUs with AVX-512: oneDNN's float32 products are as fast as MKL's on Intel, twice on AMD.
ONEDNN = (
    torch.backends.mkldnn.is_available()
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    and torch.backends.cpu.get_cpu_capability() == "AVX512"
)


class OneDNNLinear(torch.autograd.Function):
    """`F.linear` with a frozen weight by oneDNN, which PyTorch itself uses in compiled code."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """`[..., i]` times `[o, i]` to `[..., o]`."""
        ctx.weight = weight
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """The input's gradient; the weight has none."""
        transposed = ctx.weight.t()
        grad = torch.ops.mkldnn._linear_pointwise(grad, transposed, None, "none", [], "")
        return grad, None, None


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear` with a frozen weight, by the faster of PyTorch's two libraries on a CPU."""
    if torch.compiler.is_compiling():  # the compiler picks a library by itself
        return F.linear(x, weight, bias)
    if ONEDNN and x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32:
        return OneDNNLinear.apply(x, weight, bias)
    return F.linear(x, weight, bias)


def quick_gelu(x: Tensor) -> Tensor:
    """OpenAI's activation, x * sigmoid(1.702 x), keeping one tensor for backward and not two."""
    return F.silu(1.702 * x).div_(1.702)


@dataclass(frozen=True)
class Block:
    """One residual block's frozen weights, in the precision of the products."""

    ln_1: nn.Module
    ln_2: nn.Module
    qkv: tuple[Tensor, Tensor | None]
    out: tuple[Tensor, Tensor]
    up: tuple[Tensor, Tensor]
    down: tuple[Tensor, Tensor]
    activation: Callable[[Tensor], Tensor]

    def project(self, x: Tensor, part: slice = slice(None)) -> Tensor:
        """Norm, then queries, keys, values: `[..., D]` to `[..., 3 D]`, or a part of the 3 D."""
        weight, bias = self.qkv
        x = self.ln_1(x).to(weight.dtype)
        return linear(x, weight[part], None if bias is None else bias[part])

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """All that follows attention: `[..., D]`, `[..., D]` to `[..., D]`."""
        x = x + linear(attended, *self.out)
        hidden = linear(self.ln_2(x).to(self.up[0].dtype), *self.up)  # [..., 4 D]
        return x + linear(self.activation(hidden), *self.down)


class PackedTower:
    """A text tower's weights and the constants that follow from them alone.

    Attributes:
        blocks: The residual blocks.
        heads: H.
        width: D.
        starts: For each block, `[2 D]`: key and value of the start token, the same in all prompts.
    """

    def __init__(self, clip: FrozenCLIP, start_token: int, dtype: torch.dtype) -> None:
        """Gathers the weights (copies only if `dtype` is not theirs)."""
        self.tower = clip.text_tower
        self.dtype = dtype
        self.blocks = [_read_block(b, dtype) for b in self.tower.transformer.resblocks]
        self.heads = self.tower.transformer.resblocks[0].attn.num_heads
        self.width = clip.text_width
        projection = self.tower.text_projection
        self.projection = None
        if isinstance(projection, nn.Linear):
            self.projection = _cast((projection.weight, projection.bias), dtype)
        elif projection is not None:
            self.projection = _cast((projection.t().contiguous(), None), dtype)
        start = torch.tensor([start_token], device=clip.device)
        self.starts = self._start_keys(self.embed(start, torch.zeros_like(start)))

    def embed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Ids and places `[...]` to the sum of their embeddings, `[..., D]`."""
        return self.words(tokens) + self.places(positions)

    def words(self, tokens: Tensor) -> Tensor:
        """Embedded tokens: `[...]` to `[..., D]`."""
        return self.tower.token_embedding(tokens).to(self.stream_dtype)

    def places(self, positions: Tensor) -> Tensor:
        """Embedded positions: `[...]` to `[..., D]`."""
        return self.tower.positional_embedding[positions].to(self.stream_dtype)

    @property
    def stream_dtype(self) -> torch.dtype:
        """The type of the residual stream: the weights' own, also under autocast."""
        return self.tower.transformer.get_cast_dtype()

    def _start_keys(self, x: Tensor) -> list[Tensor]:
        """Runs the start token `[1, D]`, which sees itself only: attention returns its value."""
        keys = []
        for block in self.blocks:
            kv = block.project(x, slice(self.width, None))  # [1, 2 D]
            keys.append(kv[0])
            x = block.finish(x, kv[:, self.width :])
        return keys

    def head(self, x: Tensor) -> Tensor:
        """From the end tokens' last states to features: `[..., D]` to `[..., E]`, normalised."""
        x = self.tower.ln_final(x)
        if self.projection is not None:
            x = linear(x.to(self.dtype), *self.projection)
        return F.normalize(x, dim=-1)


def obstacle(clip: FrozenCLIP) -> str | None:
    """Why a text tower cannot be packed, in words; None if it can."""
    tower = clip.text_tower
    blocks = getattr(tower.transformer, "resblocks", [])
    if not is_causal(tower.attn_mask):
        return "its text tower is not causal"
    if getattr(tower, "cls_emb", None) is not None:
        return "its text tower reads a class token"
    if not blocks or not all(map(_is_plain, blocks)):
        return "its text tower is not made of CLIP's plain residual blocks"
    if any(p.requires_grad for p in tower.parameters()):
        return "its text tower is not frozen"
    return None


def _is_plain(block: nn.Module) -> bool:
    """Whether a block computes what `Block` does, no more and no less."""
    if type(block) is not ResidualAttentionBlock or hasattr(block, "ln_1_kv"):
        return False
    attn, mlp = block.attn, block.mlp
    linears = [mlp.c_fc, mlp.c_proj]  # quantised or adapted layers are other classes
    return (
        type(attn) is nn.MultiheadAttention
        and attn.in_proj_weight is not None
        and attn.bias_k is None
        and not attn.add_zero_attn
        and list(dict(mlp.named_children())) == ["c_fc", "gelu", "c_proj"]
        and all(type(layer) is nn.Linear for layer in linears)
        and type(mlp.gelu) in (QuickGELU, nn.GELU)
        and isinstance(block.ls_1, nn.Identity)
        and isinstance(block.ls_2, nn.Identity)
    )


def _read_block(block: nn.Module, dtype: torch.dtype) -> Block:
    attn, mlp = block.attn, block.mlp
    pairs = [
        (attn.in_proj_weight, attn.in_proj_bias),
        (attn.out_proj.weight, attn.out_proj.bias),
        (mlp.c_fc.weight, mlp.c_fc.bias),
        (mlp.c_proj.weight, mlp.c_proj.bias),
    ]
    qkv, out, up, down = (_cast(pair, dtype) for pair in pairs)
    activation = quick_gelu if isinstance(mlp.gelu, QuickGELU) else mlp.gelu
    return Block(block.ln_1, block.ln_2, qkv, out, up, down, activation)


def _cast(pair: tuple[Tensor, Tensor | None], dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """Weight and bias in another type, cut off from autograd."""
    weight, bias = pair
    return weight.detach().to(dtype), None if bias is None else bias.detach().to(dtype)
