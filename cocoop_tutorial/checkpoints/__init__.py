"""Files that hold learned prompts: this library's format, the Hub's folders, the official code's.

They hold facts and tensors only; `models` turns these into a model and back. The checkpoints of a
run that is still training belong to `training`.
"""
