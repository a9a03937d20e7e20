"""How the embedded backbone was trained, from drawings and captions.

Nothing else in the library needs it; `clip.load` loads its result.
"""
