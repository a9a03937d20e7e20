"""Grids of runs over datasets, methods and seeds, and the commands that record them.

One run is trained by `training` and measured by `evaluation`.
"""
