"""Learned prompts on disk and on the Hub, in this library's format and in the official code's.

Training checkpoints are not here: they belong to `training`.
"""
