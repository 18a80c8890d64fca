"""Readers of published formats, one file each: they hand out raw samples."""
