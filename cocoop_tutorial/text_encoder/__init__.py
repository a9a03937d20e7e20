"""From class names and a context to text features: the published way and the packed way.

The learned context itself belongs to `models`.
"""
