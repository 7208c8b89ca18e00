"""From counts and objects to flat scenes: how many, how large, where, over what, and how they are drawn."""
