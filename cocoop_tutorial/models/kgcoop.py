"""KgCoOp: CoOp that is held near the hand-written prompt (chapter 9)."""

import math
from numbers import Real
from typing import Any

from torch import Tensor

from cocoop_tutorial.errors import SettingError
from cocoop_tutorial.models.coop import CoOp
from cocoop_tutorial.models.zero_shot import ZeroShotCLIP
from cocoop_tutorial.text_encoder.prompts import TEMPLATE


class KgCoOp(CoOp):
    """CoOp whose classifier pays for every step away from the hand-written prompt's.

    KgCoOp (2303.13283), equation 4: the loss is the cross-entropy plus `weight` times one minus
    the mean cosine between learned and hand-written text features. Introduced in chapter 9.
    """

    image_conditioned = False
    can_be_recorded = True

    def __init__(
        self, *arguments: Any, weight: float = 8.0, template: str = TEMPLATE, **options: Any
    ) -> None:
        """Encodes the hand-written prompts.

        Args:
            arguments: As for `CoOp`.
            weight: Of the penalty; the paper's is 8.
            template: The hand-written prompt, with one "{}" for the class name.
            options: As for `CoOp`.

        Raises:
            SettingError: The weight is not a number from 0.
        """
        if not isinstance(weight, Real) or not 0 <= weight < math.inf:
            raise SettingError(f"weight is {weight!r}; it must be a number from 0.")
        super().__init__(*arguments, **options)
        self.weight, self.template = float(weight), template
        self._words = [self._hand_written()]  # in a list, so that it is not part of this model

    def _hand_written(self) -> ZeroShotCLIP:
        twins = self.prompts.allow_duplicates
        return ZeroShotCLIP(self.clip, self.classnames, self.template, twins)

    @property
    def hand_written(self) -> Tensor:
        """The hand-written prompts' classifier, `[K, E]`."""
        if self._words[0].classnames != self.classnames:  # after `with_classnames`
            self._words = [self._hand_written()]
        return self._words[0].weights

    def penalty(self) -> Tensor:
        """How far the classifier is from the hand-written one, times `weight`."""
        cosines = (self.text_features() * self.hand_written).sum(dim=-1)  # [K]
        return self.weight * (1 - cosines.mean())

    def options(self) -> dict[str, Any]:
        """The arguments, besides backbone and names, that build this model again."""
        return {**super().options(), "weight": self.weight, "template": self.template}
