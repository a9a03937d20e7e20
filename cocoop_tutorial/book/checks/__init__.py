"""Checkers for the exercises, one module per chapter: they say what passed, or what is wrong."""
