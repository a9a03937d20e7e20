"""A few-shot learner without words: logistic regression on image features (chapter 2)."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from cocoop_tutorial.clip.frozen import FrozenCLIP

STRENGTHS = tuple(10.0**k for k in range(-2, 5))  # C of scikit-learn; the smallest holds most back
Labelled = tuple[Tensor, Tensor]


class LinearProbe(nn.Module):
    """Logistic regression on frozen image features, as strongly regularised as suits val best.

    It reads no class names, so it cannot recognise a class without shots. CLIP (2103.00020),
    section 3.2. Introduced in chapter 2.
    """

    def __init__(
        self, clip: FrozenCLIP, classnames: Sequence[str], shots: Labelled, val: Labelled
    ) -> None:
        """Fits one probe per strength and keeps the one that is best on val, the first of equals.

        Args:
            clip: The backbone.
            classnames: K names.
            shots: Features `[N, E]` and labels `[N]` to fit on.
            val: The same of other images.
        """
        from sklearn.linear_model import LogisticRegression  # here: only this needs scikit-learn
        from threadpoolctl import threadpool_limits

        super().__init__()
        self.clip, self.classnames = clip, list(classnames)
        fit_on, choose_on = ([np.asarray(x.cpu()) for x in part] for part in (shots, val))
        probes = [LogisticRegression(C=strength, max_iter=1000) for strength in STRENGTHS]
        with threadpool_limits(1):  # threads would wait for one another: the matrices are small
            best = max(probes, key=lambda probe: probe.fit(*fit_on).score(*choose_on))
        weights, bias = torch.from_numpy(best.coef_), torch.from_numpy(best.intercept_)
        if len(weights) == 1:  # of two classes scikit-learn keeps only the second
            weights, bias = torch.cat([-weights, weights]), torch.cat([-bias, bias])
        self.strength = best.C
        self.register_buffer("weights", weights.to(clip.device))  # [K, E]
        self.register_buffer("bias", bias.to(clip.device))  # [K]

    def logits_from_features(self, features: Tensor) -> Tensor:
        """Scores L2-normalised image features `[B, E]`; returns logits `[B, K]`."""
        return features.to(self.weights.dtype) @ self.weights.T + self.bias
