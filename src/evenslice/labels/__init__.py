"""Segmentations and how good they are. numpy only."""
