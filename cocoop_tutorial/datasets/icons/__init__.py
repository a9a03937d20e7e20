"""The embedded world: datasets of icons by subject, drawn by houses the backbone never saw."""
