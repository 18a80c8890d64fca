"""Heads: one vector a sample in; answers, their loss and their metrics out."""
