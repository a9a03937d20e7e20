"""`FrozenCLIP`: the image tower and the text tower that every method here uses (chapter 1)."""

from typing import Any

import open_clip
import torch
from open_clip.model import get_model_preprocess_cfg
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from cocoop_tutorial.clip.transforms import TrainTransform, eval_transform
from cocoop_tutorial.errors import PromptError

# CLIP's own values, for models that were built by hand and have no preprocess_cfg.
CLIP_PIXELS = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}


class FrozenCLIP(nn.Module):
    """A CLIP that is never trained: its weights have no gradients, and it stays in evaluation mode.

    Attributes:
        model: open_clip's own model, unchanged.
        name: The name that was given to `load_clip`.
        precision: "fp32", "bf16", "fp16" or "amp".
        preprocess: PIL image to `[3, H, W]`, the test transform.
        preprocess_train: PIL image to `[3, H, W]`, a random crop and flip.

    Introduced in chapter 1.
    """

    def __init__(
        self, model: nn.Module, name: str = "custom", precision: str = "fp32", tokenizer: Any = None
    ) -> None:
        """Freezes `model`.

        Args:
            model: open_clip's `CLIP` or `CustomTextCLIP`.
            name: A name for tables and checkpoints.
            precision: What it computes in: "fp32", "bf16", "fp16" or "amp".
            tokenizer: open_clip's tokenizer for it; None takes CLIP's own.
        """
        super().__init__()
        self.model = model.requires_grad_(False).eval()
        self.name, self.precision = name, precision
        self.tokenizer = tokenizer or SimpleTokenizer(context_length=model.context_length)
        config = {**CLIP_PIXELS, **get_model_preprocess_cfg(model)}
        self.preprocess = eval_transform(config)
        self.preprocess_train = TrainTransform(self.image_size, config["mean"], config["std"])

    def train(self, mode: bool = True) -> "FrozenCLIP":
        """Stays in evaluation mode, whatever mode the model around it is in."""
        return super().train(False)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.logit_scale.device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weight matrices (open_clip keeps norms and embeddings in float32)."""
        kinds = (nn.Linear, nn.Conv2d)
        return next(m.weight.dtype for m in self.model.modules() if isinstance(m, kinds))

    @property
    def image_size(self) -> int:
        """Side of the square input image, in pixels."""
        size = self.model.visual.image_size
        return size[0] if isinstance(size, (tuple, list)) else size

    @property
    def text_tower(self) -> nn.Module:
        """The module with `token_embedding`, `transformer`, `ln_final`, `text_projection` ..."""
        return getattr(self.model, "text", self.model)

    @property
    def text_width(self) -> int:
        """D: width of the text transformer."""
        return self.text_tower.positional_embedding.shape[-1]

    @property
    def embed_dim(self) -> int:
        """E: width of the joint space."""
        projection = self.text_tower.text_projection
        if projection is None:
            return self.text_width
        return projection.out_features if isinstance(projection, nn.Linear) else projection.shape[1]

    @property
    def context_length(self) -> int:
        """How many tokens the text tower reads, including the start and end tokens."""
        return self.model.context_length

    @property
    def logit_scale(self) -> Tensor:
        """The inverse temperature, a scalar tensor; CLIP (2103.00020), section 2.3."""
        return self.model.logit_scale.exp().reshape(())

    def tokenize(self, texts: list[str]) -> Tensor:
        """Token ids, padded with zeros.

        Args:
            texts: N texts.

        Returns:
            `[N, context_length]`, int64.

        Raises:
            PromptError: A text has too many tokens (open_clip would cut it silently).
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        if isinstance(self.tokenizer, SimpleTokenizer):
            for text in texts:
                self._check_length(text)
        if not texts:
            return torch.zeros(0, self.context_length, dtype=torch.long)
        return self.tokenizer(texts, context_length=self.context_length)

    def _check_length(self, text: str) -> None:
        n = len(self.tokenizer.encode(text)) + 2  # start and end token
        if n > self.context_length:
            raise PromptError(
                f"{text!r} is {n} tokens long, and {self.name} reads {self.context_length}. "
                "Shorten the class name or the template."
            )

    def encode_image(self, images: Tensor) -> Tensor:
        """Encodes images with the image tower.

        Args:
            images: `[B, 3, H, W]`, as `preprocess` returns them, on any device.

        Returns:
            `[B, E]`, L2-normalised; without gradient, unless the images require one.
        """
        images = images.to(self.device, self.dtype)
        if not len(images):  # which open_clip's vision transformer cannot reshape
            return images.new_zeros(0, self.embed_dim)
        with torch.set_grad_enabled(torch.is_grad_enabled() and images.requires_grad):
            return F.normalize(self.model.encode_image(images), dim=-1)

    @torch.no_grad()
    def encode_text(self, texts: list[str], batch_size: int = 256) -> Tensor:
        """Encodes texts with open_clip's own code, which is the reference for every faster path.

        Args:
            texts: N texts.
            batch_size: Number of texts per pass.

        Returns:
            `[N, E]`, L2-normalised.
        """
        tokens = self.tokenize(texts).to(self.device)
        features = [self.model.encode_text(batch) for batch in tokens.split(batch_size)]
        return F.normalize(torch.cat(features), dim=-1)

    def extra_repr(self) -> str:
        """One line for `print(clip)`."""
        return f"name={self.name!r}, precision={self.precision!r}"
