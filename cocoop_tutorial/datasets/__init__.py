"""Images with labels: how they are found, split, drawn, decoded, downloaded and checked.

What a backbone makes of them is in `clip`; which of them an experiment uses, in `experiments`.
"""
