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
    """`[B * T * H, Q, D / H]` back to `shape`, `[B, T, Q, D]`."""
    B, T, Q, D = shape
    x = x.view(B, T, -1, Q, x.shape[-1])  # [B, T, H, Q, D / H]
    return x.transpose(2, 3).reshape(B, T, Q, D)


class ExplicitAttention(torch.autograd.Function):
    """Softmax(q k') v written out: on a CPU, faster for such small tiles than the fused kernel."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, kv: Tensor, start: Tensor, mask: Tensor, heads: int, prefix: int
    ) -> Tensor:
        """See `attention`."""
        B, T = q.shape[:2]
        ctx.shapes, ctx.heads, ctx.prefix = (q.shape, kv.shape), heads, prefix
        k, v = join_prefix(kv, start, prefix, heads).flatten(1, 3)  # [B * T * H, S, D / H] each
        q = split_heads(q, heads) * k.shape[-1] ** -0.5  # [B * T * H, Q, D / H]
        scores = torch.bmm(q, k.transpose(1, 2))  # [B * T * H, Q, S]
        scores.view(B, T, heads, *scores.shape[1:]).add_(mask)
        weights = scores.softmax(-1)
        ctx.save_for_backward(q, k, v, weights)
        return merge_heads(torch.bmm(weights, v), ctx.shapes[0])

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
        torch.bmm(dscores.transpose(1, 2), q, out=dkv[0])
        dq = torch.bmm(dscores, k).mul_(k.shape[-1] ** -0.5)
        dkv = dkv.view(2, B, T, heads, P + R, -1).permute(
            1, 2, 4, 0, 3, 5
        )  # [B, T, S, 2, H, D / H]
        own = dkv[:, :, P:].reshape(ctx.shapes[1])  # [B, T, R, 2 D]
        # All tiles look at one prefix: its gradient is their sum. The start token has none.
        own[:, 0, : P - 1] += dkv[:, :, 1:P].sum(1).flatten(2)  # [B, P - 1, 2 D]
        return merge_heads(dq, ctx.shapes[0]), own, None, None, None, None


class FusedAttention(torch.autograd.Function):
    """PyTorch's fused attention, run again in backward: keeps queries, keys and values only."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, kv: Tensor, *rest: Any) -> Tensor:
        """See `attention`."""
        ctx.save_for_backward(q, kv)
        ctx.rest = rest
        return _fused(q, kv, *rest)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of queries, keys and values."""
        inputs = [t.detach().requires_grad_() for t in ctx.saved_tensors]
        with torch.enable_grad():
            out = _fused(*inputs, *ctx.rest)
        return *torch.autograd.grad(out, inputs, grad), None, None, None, None


def _fused(q: Tensor, kv: Tensor, start: Tensor, mask: Tensor, heads: int, prefix: int) -> Tensor:
    B, T, Q, D = q.shape
    k, v = join_prefix(kv, start, prefix, heads).flatten(1, 2)  # [B * T, H, S, D / H] each
    q = q.reshape(B * T, Q, heads, D // heads).transpose(1, 2)  # [B * T, H, Q, D / H]
    mask = mask.expand(B, *mask.shape).flatten(0, 1)  # [B * T, 1, Q, S]
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return out.transpose(1, 2).reshape(B, T, Q, D)


def attention(
    q: Tensor, kv: Tensor, start: Tensor, mask: Tensor, heads: int, prefix: int
) -> Tensor:
    """Attention within tiles and to the prefix.

    Args:
        q: `[B, T, Q, D]`, queries.
        kv: `[B, T, R, 2 D]`, keys and values; the first `prefix` of tile 0 are the context's.
        start: `[2 D]`, key and value of the start token.
        mask: `[T, 1, Q, S]`, 0 or minus infinity, added to the scores.
        heads: H.
        prefix: P - 1.

    Returns:
        `[B, T, Q, D]`.
    """
    # In half precision only the fused kernel keeps the scores exact.
    explicit = q.device.type == "cpu" and q.dtype in (torch.float32, torch.float64)
    kind = ExplicitAttention if explicit else FusedAttention
    return kind.apply(q, kv, start, mask, heads, prefix)
