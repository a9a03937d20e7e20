"""The exact, cheap text encoder: tokens that prompts share are computed once.

It gives the logits and gradients of `text_encoder.reference`.
"""
