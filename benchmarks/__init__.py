"""Speed and memory, side by side: `make bench`."""
