"""Checkers for the exercises, one module a chapter: they say what passed, or what is wrong."""
