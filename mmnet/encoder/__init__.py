"""Encoders: one modality in, features out; one folder a modality, one file a family."""
