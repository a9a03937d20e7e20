"""Data sets of both worlds behind one function (chapter 2)."""

from .images import check_images
from .splits import Dataset, Split, base_new, few_shot, open_image

__all__ = ["Dataset", "Split", "base_new", "check_images", "few_shot", "open_image"]
