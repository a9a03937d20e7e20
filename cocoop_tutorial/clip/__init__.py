"""The frozen backbone: loading it by name, its transforms, and image features.

What learns on top of it is in `models`.
"""
