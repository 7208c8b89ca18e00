"""Reference models of multi-object images: one file a model, one loop that trains them all."""
