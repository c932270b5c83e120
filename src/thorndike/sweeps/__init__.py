"""Many settings at once: a grid or draws over any field, side by side, and a search for the best of them."""
