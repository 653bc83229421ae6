"""Training and examining the bundled model."""
