"""The Meta-Net: from an image to one vector that is added to the context (chapter 4)."""

from torch import Tensor, nn
from torch.nn import functional as F

REDUCTION = 16  # the paper's bottleneck: a sixteenth of the joint width


class MetaNet(nn.Module):
    """Linear - ReLU - Linear with a bottleneck: pi = h(x).

    CoCoOp (2203.05557), section 3.2. Introduced in chapter 4.
    """

    def __init__(self, embed_dim: int, text_width: int) -> None:
        """Default initialisation of `nn.Linear`, as published.

        Args:
            embed_dim: E, the width of the image feature.
            text_width: D, the width of the context.
        """
        super().__init__()
        hidden = max(embed_dim // REDUCTION, 1)
        self.linear1 = nn.Linear(embed_dim, hidden)
        self.linear2 = nn.Linear(hidden, text_width)

    def forward(self, features: Tensor) -> Tensor:
        """Computes pi.

        Args:
            features: `[B, E]`, L2-normalised image features.

        Returns:
            `[B, D]`.
        """
        return self.linear2(F.relu(self.linear1(features)))
