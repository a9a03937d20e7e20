"""One training run: settings, batches, the loop, checkpoints that resume.

Grids of runs are in `experiments`.
"""
