"""Where objects come from: digits (MNIST, bundled), and what a drawn object is (`Sprites`)."""
