"""A frozen text tower as the packed encoder runs it (chapter 5).

The weights never train, so backward needs gradients of inputs only, and a linear layer keeps
nothing for it.

Notation: D, E = text, joint width, H heads.
"""

from dataclasses import dataclass
from typing import Any

import torch
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from torch import Tensor, nn
from torch.nn import functional as F

from cocoop_tutorial.clip.frozen import FrozenCLIP
from cocoop_tutorial.clip.identity import has_hooks, text_weights
from cocoop_tutorial.text_encoder.reference import is_causal

# On x86, oneDNN's large float32 products are a tenth faster than MKL's ("rates" in
# results/bench_text_encoder_cpu*.json), and small ones even more. CPUs without AVX2 have not been
# measured.
ONEDNN = (
    torch.backends.mkldnn.is_available()
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    and torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
)


class FrozenLinear:
    """`x W' + b` with a weight that never trains, by the faster of a CPU's two libraries.

    oneDNN has its own order for weights and would reorder them at every call. So the frozen weight
    is kept in that order from the first call that needs it, and for backward its transpose too.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """`[o, i]`, `[o]`."""
        self.weight, self.bias = weight, bias
        self.reordered: dict[bool, Tensor] = {}  # transposed or not -> oneDNN's own order

    def __call__(self, x: Tensor) -> Tensor:
        """`[..., i]` to `[..., o]`."""
        if self.by_onednn(x):
            return OneDNNProduct.apply(x, None, self)
        return F.linear(x, self.weight, self.bias)

    def added_to(self, stream: Tensor, x: Tensor) -> Tensor:
        """`[..., o]`, `[..., i]` to the sum of the first and the layer's output."""
        if self.by_onednn(x) and stream.dtype == x.dtype:
            return OneDNNProduct.apply(x, stream, self)
        return stream + self(x)

    def by_onednn(self, x: Tensor) -> bool:
        """Whether to use oneDNN; torch.compile chooses a library by itself."""
        same = x.dtype == self.weight.dtype == torch.float32
        return ONEDNN and same and x.device.type == "cpu" and not torch.compiler.is_compiling()

    def rows(self, part: slice) -> "FrozenLinear":
        """The layer that computes a part of the outputs."""
        return FrozenLinear(self.weight[part], None if self.bias is None else self.bias[part])

    def product(self, x: Tensor, stream: Tensor | None = None) -> Tensor:
        """Computes x W' + b and adds it to the stream; keeps nothing for backward."""
        if not self.by_onednn(x):
            out = F.linear(x, self.weight, self.bias)
            return out if stream is None else out.add_(stream)
        weight = self.onednn_weight(transposed=False)
        if stream is None:
            return torch.ops.mkldnn._linear_pointwise(x, weight, self.bias, "none", [], "")
        return torch.ops.mkldnn._linear_pointwise.binary(x, stream, weight, self.bias, "add")

    def input_gradient(self, grad: Tensor) -> Tensor:
        """The output's gradient times W; the weight itself needs no gradient."""
        if not self.by_onednn(grad):
            return grad @ self.weight
        weight = self.onednn_weight(transposed=True)
        return torch.ops.mkldnn._linear_pointwise(grad, weight, None, "none", [], "")

    def onednn_weight(self, transposed: bool) -> Tensor:
        """W' or W, in oneDNN's order."""
        if transposed not in self.reordered:
            weight = self.weight.t() if transposed else self.weight
            with torch.inference_mode(False), torch.no_grad():
                weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), None)
            self.reordered[transposed] = weight
        return self.reordered[transposed]


class OneDNNProduct(torch.autograd.Function):
    """A frozen linear layer by oneDNN, which PyTorch itself uses in compiled code."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, stream: Tensor | None, layer: FrozenLinear) -> Tensor:
        """`[..., i]`, `[..., o]` or none, to `[..., o]`."""
        ctx.layer, ctx.adds = layer, stream is not None
        return layer.product(x, stream)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:
        """The gradients of input and stream."""
        return ctx.layer.input_gradient(grad), grad if ctx.adds else None, None


class FrozenPerceptron(torch.autograd.Function):
    """A block's frozen MLP, added to the stream.

    It is one function so that backward can overwrite one gradient with the next, because at such
    sizes a step waits for memory more than for the activation's arithmetic.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, stream: Tensor, block: "Block") -> Tensor:
        """The stream's norm `[..., D]` and the stream `[..., D]` to `[..., D]`."""
        hidden = block.up.product(x)  # [..., 4 D]
        ctx.block = block
        ctx.save_for_backward(hidden)
        return block.down.product(block.activation(hidden), stream)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        """The gradients of norm and stream."""
        (hidden,), block = ctx.saved_tensors, ctx.block
        through = block.down.input_gradient(grad)  # [..., 4 D]
        block.activation.scale_gradient(through, hidden)
        return block.up.input_gradient(through), grad, None


@dataclass(frozen=True)
class Gelu:
    """GELU, exact or by tanh."""

    approximate: str

    def __call__(self, x: Tensor) -> Tensor:
        """`[...]` to `[...]`."""
        return F.gelu(x, approximate=self.approximate)

    def scale_gradient(self, grad: Tensor, x: Tensor) -> None:
        """Multiplies the output's gradient by the derivative at x, in place."""
        kind = {"approximate": self.approximate}
        torch.ops.aten.gelu_backward.grad_input(grad, x, **kind, grad_input=grad)


class QuickGelu:
    """OpenAI's activation, x * sigmoid(1.702 x), with one tensor kept for backward, not two."""

    def __call__(self, x: Tensor) -> Tensor:
        """`[...]` to `[...]`."""
        return F.silu(1.702 * x).div_(1.702)

    def scale_gradient(self, grad: Tensor, x: Tensor) -> None:
        """Multiplies the output's gradient by the derivative at x, in place."""
        torch.ops.aten.silu_backward.grad_input(grad, 1.702 * x, grad_input=grad)


@dataclass(frozen=True)
class Block:
    """One residual block's frozen weights, in the precision of the products."""

    ln_1: nn.Module
    ln_2: nn.Module
    qkv: FrozenLinear
    q: FrozenLinear
    kv: FrozenLinear
    out: FrozenLinear
    up: FrozenLinear
    down: FrozenLinear
    activation: Gelu | QuickGelu

    def norm(self, x: Tensor) -> Tensor:
        """The input of queries, keys and values: `[..., D]` to `[..., D]`."""
        return self.ln_1(x).to(self.qkv.weight.dtype)

    def project(self, x: Tensor) -> Tensor:
        """Norm, then queries, keys, values: `[..., D]` to `[..., 3 D]`."""
        return self.qkv(self.norm(x))

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """Everything after attention: `[..., D]`, `[..., D]` to `[..., D]`."""
        x = self.out.added_to(x, attended)
        normed = self.ln_2(x).to(self.up.weight.dtype)
        if torch.compiler.is_compiling() or x.dtype != normed.dtype:
            return x + self.down(self.activation(self.up(normed)))
        return FrozenPerceptron.apply(normed, x, self)


class PackedTower:
    """A text tower's weights and the constants that follow from them alone.

    Attributes:
        blocks: The residual blocks.
        heads: H.
        width: D.
        starts: For each block, `[2 D]`: the start token's key and value, which no prompt changes.
    """

    def __init__(self, clip: FrozenCLIP, start_token: int, dtype: torch.dtype) -> None:
        """Gathers the weights; copies them only if they are not in `dtype`."""
        self.tower = clip.text_tower
        self.dtype = dtype
        self.blocks = [_read_block(b, dtype) for b in self.tower.transformer.resblocks]
        self.heads = self.tower.transformer.resblocks[0].attn.num_heads
        self.width = clip.text_width
        projection = self.tower.text_projection
        self.projection = None
        if isinstance(projection, nn.Linear):
            self.projection = _freeze((projection.weight, projection.bias), dtype)
        elif projection is not None:
            self.projection = _freeze((projection.t().contiguous(), None), dtype)
        start = torch.tensor([start_token], device=clip.device)
        self.starts = self._start_keys(self.embed(start, torch.zeros_like(start)))

    def embed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Ids and positions `[...]` to the sum of their embeddings, `[..., D]`."""
        return self.words(tokens) + self.embed_positions(positions)

    def words(self, tokens: Tensor) -> Tensor:
        """Embedded tokens: `[...]` to `[..., D]`."""
        return self.tower.token_embedding(tokens).to(self.stream_dtype)

    def embed_positions(self, positions: Tensor) -> Tensor:
        """Embedded positions: `[...]` to `[..., D]`."""
        return self.tower.positional_embedding[positions].to(self.stream_dtype)

    @property
    def stream_dtype(self) -> torch.dtype:
        """The type of the residual stream: the weights' own, also under autocast."""
        return self.tower.transformer.get_cast_dtype()

    def _start_keys(self, x: Tensor) -> list[Tensor]:
        """Runs the start token `[1, D]`. It sees only itself, so attention returns its value."""
        keys = []
        for block in self.blocks:
            kv = block.kv(block.norm(x))  # [1, 2 D]
            keys.append(kv[0])
            x = block.finish(x, kv[:, self.width :])
        return keys

    def head(self, x: Tensor) -> Tensor:
        """From the end tokens' last states to features: `[..., D]` to `[..., E]`, normalised."""
        x = self.tower.ln_final(x)
        if self.projection is not None:
            x = self.projection(x.to(self.dtype))
        return F.normalize(x, dim=-1)


def unsupported_reason(clip: FrozenCLIP) -> str | None:
    """Why a text tower cannot be packed, as half a sentence; None if it can."""
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
    if any(map(has_hooks, text_weights(clip)[0])):
        return "somebody's hooks run in its text tower"
    return None


def _is_plain(block: nn.Module) -> bool:
    """Whether a block computes exactly what `Block` does."""
    if type(block) is not ResidualAttentionBlock or hasattr(block, "ln_1_kv"):
        return False
    attn, mlp = block.attn, block.mlp
    linears = [mlp.c_fc, mlp.c_proj]  # quantised or adapted layers are of other types
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
    qkv, out, up, down = (_freeze(pair, dtype) for pair in pairs)
    D = len(qkv.weight) // 3
    q, kv = qkv.rows(slice(D)), qkv.rows(slice(D, None))
    quick = isinstance(mlp.gelu, QuickGELU)
    activation = QuickGelu() if quick else Gelu(mlp.gelu.approximate)
    return Block(block.ln_1, block.ln_2, qkv, q, kv, out, up, down, activation)


def _freeze(pair: tuple[Tensor, Tensor | None], dtype: torch.dtype) -> FrozenLinear:
    """Weight and bias in another type, detached from autograd."""
    weight, bias = pair
    bias = None if bias is None else bias.detach().to(dtype)
    return FrozenLinear(weight.detach().to(dtype), bias)
