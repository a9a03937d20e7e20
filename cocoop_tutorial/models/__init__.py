"""The methods: zero-shot CLIP, CoOp, CoCoOp, class means of image features, and how they are saved.

How they are trained is in `training`; how their prompts are encoded, in `text_encoder`; what their
files look like, in `checkpoints`.
"""

# Imported here because a saved prompt finds its class among those that have been defined.
from cocoop_tutorial.models import cocoop, coop  # noqa: F401
