"""A few-shot learner without words: logistic regression on image features (chapter 2)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from cocoop_tutorial.clip.frozen import FrozenCLIP
from cocoop_tutorial.errors import DataError
from cocoop_tutorial.models.prototypes import ShotClassifier

STRENGTHS = tuple(10.0**k for k in range(-2, 5))  # C of scikit-learn; the smallest holds most back
Labelled = tuple[Tensor, Tensor]


class LinearProbe(ShotClassifier):
    """Logistic regression on frozen image features, as strongly regularised as suits val best.

    It reads no class names, so it cannot recognise a class without shots. CLIP (2103.00020),
    section 3.2. Introduced in chapter 2.
    """

    @torch.inference_mode(False)  # because images may ask for gradients later
    def __init__(
        self, clip: FrozenCLIP, classnames: Sequence[str], shots: Labelled, val: Labelled
    ) -> None:
        """Fits one probe per strength and keeps the one that is best on val, the first of equals.

        Args:
            clip: The backbone.
            classnames: K names.
            shots: Features `[N, E]` and labels `[N]` to fit on.
            val: The same of other images.

        Raises:
            DataError: A class has no shots, there are fewer than two classes, or val is empty.
        """
        from sklearn.linear_model import LogisticRegression  # here: only this needs scikit-learn
        from threadpoolctl import threadpool_limits

        super().__init__(clip, classnames, shots[1])
        if len(self.classnames) < 2 or not len(val[1]):
            raise DataError("A linear probe needs two classes and some val images.")
        fit_on, choose_on = (
            (features.float().cpu().numpy(), labels.cpu().numpy())  # NumPy does not know bfloat16
            for features, labels in (shots, val)
        )
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
        self.check_tower()
        return features.to(self.weights.dtype) @ self.weights.T + self.bias
