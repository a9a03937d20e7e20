"""One training run: its settings, batches, loop, and checkpoints to resume from.

Start reading in `loop`. Grids of runs are in `experiments`, what trains is in `models`.
"""
