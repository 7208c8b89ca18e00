"""One file a data set: a frozen dataclass with ``scenes(rng, n, split=..., first=...) -> Scenes``."""
