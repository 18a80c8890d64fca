"""Fusions: features of several modalities in, one vector a sample out."""
