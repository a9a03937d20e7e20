"""What only the pages need: notebook helpers, plots, widgets, figures, exercise checkers.

Nothing here trains a model or measures one, and nothing below this room imports it.
"""
