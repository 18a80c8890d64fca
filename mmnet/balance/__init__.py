"""Balance of the encoders in a step: what keeps one from learning at the cost of the other."""
