"""The methods: zero-shot CLIP, CoOp, CoCoOp, and class means of image features.

How they are trained is in `training`; how their prompts are encoded, in `text_encoder`.
"""
