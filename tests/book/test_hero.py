"""The README's picture."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_picture_in_git_is_what_the_command_draws(cocoop, tmp_path: Path) -> None:
    assert cocoop("reproduce", "hero", tmp_path / "hero.png").status == 0
    drawn, kept = (Image.open(p) for p in (tmp_path / "hero.png", ROOT / "book/_assets/hero.png"))
    assert drawn.size == kept.size
    difference = np.asarray(drawn, dtype=float) - np.asarray(kept, dtype=float)
    assert np.abs(difference).mean() < 1  # fonts may be drawn a little differently elsewhere
