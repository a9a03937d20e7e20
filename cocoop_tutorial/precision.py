"""Names of the precisions, without importing PyTorch, so that `cocoop --help` is quick."""

from enum import StrEnum


class Precision(StrEnum):
    """What the backbone computes in (chapter 5).

    With "amp" its weights stay in float32, and products are computed in half precision.
    """

    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"
    amp = "amp"

    @property
    def of_weights(self) -> str:
        """The precision that the weights are held in: "fp32", "bf16" or "fp16"."""
        return "fp32" if self is Precision.amp else self.value


PRECISIONS = tuple(precision.value for precision in Precision)
