"""How good a model is: accuracy, calibration, and intervals for both.

The protocols of the experiments are in `experiments`.
"""
