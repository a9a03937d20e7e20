"""Attention within tiles of prompts, and from every tile to the image's prefix (chapter 5).

The prefix is joined to each tile, not to each class. Backward gives gradients of queries, keys and
values and keeps no more than it needs for them.

Notation: B images, D = text width, H heads, P prefix positions, T tiles of R tokens with Q queries
each, S = P + R.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def join_prefix(kv: Tensor, start: Tensor, prefix: int, heads: int) -> Tensor:
    """Puts the prefix's keys and values in front of each tile's own.

    Args:
        kv: `[B, T, R, 2 D]`; the first `prefix` places of tile 0 are the shared context's.
        start: `[2 D]`, of the start token: a constant.
        prefix: P - 1.
        heads: H.

    Returns:
        `[2, B, T, H, S, D / H]`, keys and values.
    """
    B, T, R, _ = kv.shape
    first = torch.cat([start.expand(B, 1, 1, -1), kv[:, :1, :prefix]], dim=2)  # [B, 1, P, 2 D]
    own = kv.view(B, T, R, 2, heads, -1).permute(3, 0, 1, 4, 2, 5)  # [2, B, T, H, R, D / H]
    first = first.view(B, 1, 1 + prefix, 2, heads, -1).permute(3, 0, 1, 4, 2, 5)
    return torch.cat([first.expand(-1, -1, T, -1, -1, -1), own], dim=-2)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """`[B, T, Q, D]` to `[B * T * H, Q, D / H]`."""
    B, T, Q, D = x.shape
    return x.reshape(B, T, Q, heads, D // heads).transpose(2, 3).flatten(0, 2)


def merge_heads(x: Tensor, shape: torch.Size) -> Tensor:
    """`[B * T * H, Q, D / H]` to `[B, T, Q, H, D / H]`; `shape` is `[B, T, Q, D]`."""
    B, T, Q, _ = shape
    return x.view(B, T, -1, Q, x.shape[-1]).transpose(2, 3)


class ExplicitAttention(torch.autograd.Function):
    """Softmax(q k') v written out: for such small tiles, faster than the fused kernel."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, kv: Tensor | None, *rest: Any) -> Tensor:
        """See `attention`."""
        start, mask, heads, prefix = rest
        ctx.joined = kv is None
        q, kv = split_projections(q, kv)
        B, T = q.shape[:2]
        ctx.shapes, ctx.heads, ctx.prefix = (q_shape := q.shape, kv.shape), heads, prefix
        k, v = join_prefix(kv, start, prefix, heads).flatten(1, 3)  # [B * T * H, S, D / H] each
        q = split_heads(q, heads)  # [B * T * H, Q, D / H]
        masks = mask.expand(B, T, heads, *mask.shape[-2:]).reshape(-1, *mask.shape[-2:])
        scale = k.shape[-1] ** -0.5
        scores = torch.baddbmm(masks, q, k.transpose(1, 2), alpha=scale)  # [B * T * H, Q, S]
        weights = scores.softmax(-1)
        ctx.save_for_backward(q, k, v, weights)
        return merge_heads(torch.bmm(weights, v), q_shape).reshape(q_shape)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of queries, keys and values."""
        q, k, v, weights = ctx.saved_tensors
        (B, T, R, _), heads, P = ctx.shapes[1], ctx.heads, 1 + ctx.prefix
        grad = split_heads(grad, heads)  # [B * T * H, Q, D / H]
        dkv = torch.empty(2, *k.shape, dtype=k.dtype, device=k.device)
        torch.bmm(weights.transpose(1, 2), grad, out=dkv[1])
        dscores = torch.bmm(grad, v.transpose(1, 2))  # [B * T * H, Q, S]
        dscores = torch.ops.aten._softmax_backward_data(dscores, weights, -1, k.dtype)
        scale = k.shape[-1] ** -0.5
        torch.baddbmm(dkv[0], dscores.transpose(1, 2), q, beta=0, alpha=scale, out=dkv[0])
        dq = torch.baddbmm(q, dscores, k, beta=0, alpha=scale)
        dkv = dkv.view(2, B, T, heads, P + R, -1)
        dkv = dkv.permute(1, 2, 4, 0, 3, 5)  # [B, T, S, 2, H, D / H]
        if ctx.joined:  # each straight to its place
            gradients = (q.new_empty(B, T, R, 3 * ctx.shapes[0][-1]), None)
        else:
            gradients = tuple(q.new_empty(shape) for shape in ctx.shapes)
        to_q, to_kv = split_projections(*gradients)
        to_q.unflatten(-1, (heads, -1)).copy_(merge_heads(dq, ctx.shapes[0]))
        to_kv.unflatten(-1, (2, heads, -1)).copy_(dkv[:, :, P:])
        # All tiles look at one prefix: its gradient is their sum. The start token has none.
        to_kv[:, 0, : P - 1] += dkv[:, :, 1:P].sum(1).flatten(2)  # [B, P - 1, 2 D]
        return *gradients, None, None, None, None


class FusedAttention(torch.autograd.Function):
    """PyTorch's fused attention, run again in backward: keeps queries, keys and values only."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, kv: Tensor | None, *rest: Any) -> Tensor:
        """See `attention`."""
        ctx.save_for_backward(q, kv)
        ctx.rest = rest
        return _fused(q, kv, *rest)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of queries, keys and values."""
        q, kv = ctx.saved_tensors
        inputs = [t.detach().requires_grad_() for t in (q, kv) if t is not None]
        with torch.enable_grad():
            out = _fused(inputs[0], None if kv is None else inputs[1], *ctx.rest)
        first, *second = torch.autograd.grad(out, inputs, grad)
        return first, second[0] if second else None, None, None, None, None


def _fused(
    q: Tensor, kv: Tensor | None, start: Tensor, mask: Tensor, heads: int, prefix: int
) -> Tensor:
    q, kv = split_projections(q, kv)
    B, T, Q, D = q.shape
    k, v = join_prefix(kv, start, prefix, heads).flatten(1, 2)  # [B * T, H, S, D / H] each
    q = q.reshape(B * T, Q, heads, D // heads).transpose(1, 2)  # [B * T, H, Q, D / H]
    mask = mask.expand(B, *mask.shape).flatten(0, 1)  # [B * T, 1, Q, S]
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return out.transpose(1, 2).reshape(B, T, Q, D)


def split_projections(q: Tensor, kv: Tensor | None) -> tuple[Tensor, Tensor]:
    """Queries `[..., D]` and keys with values `[..., 2 D]`, also from all in one `[..., 3 D]`."""
    if kv is not None:
        return q, kv
    D = q.shape[-1] // 3
    return q[..., :D], q[..., D:]


def attention(
    q: Tensor, kv: Tensor | None, start: Tensor, mask: Tensor, heads: int, prefix: int
) -> Tensor:
    """Attention within tiles and to the prefix.

    Args:
        q: `[B, T, Q, D]`, queries; or, without `kv`, `[B, T, R, 3 D]`: one for each token, and its
            key and value.
        kv: `[B, T, R, 2 D]`, keys and values; the first `prefix` of tile 0 are the context's.
        start: `[2 D]`, key and value of the start token.
        mask: `[T, 1, Q, S]`, 0 or minus infinity, added to the scores.
        heads: H.
        prefix: P - 1.

    Returns:
        `[B, T, Q, D]`.
    """
    # In half precision only the fused kernel keeps the scores exact. In full precision it is the
    # slower one for such small tiles, on a CPU and on a GPU.
    explicit = q.dtype in (torch.float32, torch.float64)
    kind = ExplicitAttention if explicit else FusedAttention
    return kind.apply(q, kv, start, mask, heads, prefix)
