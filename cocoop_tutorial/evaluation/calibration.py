"""Calibration: whether a model that says 80% is right eight times in ten (chapter 1)."""

import pandas as pd
from torch import Tensor

from cocoop_tutorial.seeds import check_whole


def reliability(logits: Tensor, labels: Tensor, bins: int = 15) -> pd.DataFrame:
    """Confidence against accuracy, in bins of equal width.

    Args:
        logits: `[N, K]`.
        labels: `[N]`.
        bins: Number of bins over 0 to 1.

    Returns:
        One row per bin: `low`, `high`, `count`, and the mean `confidence` and `accuracy` (0 to 1,
        not-a-number in empty bins).
    """
    bins = check_whole("bins", bins)
    confidence, predicted = logits.float().softmax(dim=1).max(dim=1)
    index = (confidence * bins).long().clamp(max=bins - 1)
    table = pd.DataFrame(
        {
            "bin": index.numpy(),
            "confidence": confidence.double().numpy(),
            "accuracy": (predicted == labels).double().numpy(),
        }
    )
    grouped = table.groupby("bin")
    out = grouped.mean().reindex(range(bins))
    out.insert(0, "count", grouped.size().reindex(range(bins), fill_value=0))
    out.insert(0, "high", [(i + 1) / bins for i in range(bins)])
    out.insert(0, "low", [i / bins for i in range(bins)])
    return out.reset_index(drop=True)


def expected_calibration_error(logits: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Mean gap between confidence and accuracy, weighted by bin, in percent.

    Args:
        logits: `[N, K]`.
        labels: `[N]`.
        bins: Number of bins over 0 to 1.

    Returns:
        Percent; 0 is perfectly calibrated.
    """
    table = reliability(logits, labels, bins).dropna()
    gaps = (table.confidence - table.accuracy).abs()
    return 100 * float((gaps * table["count"]).sum() / table["count"].sum())
