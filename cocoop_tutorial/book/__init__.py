"""What only the pages need: notebook helpers, plots, widgets, figures, exercise checkers.

Nothing here trains or evaluates anything; the rest of the library never imports it.
"""
