"""Self-supervised runs on handwritten digits, written as if `uniformity_callbacks` did not exist."""
