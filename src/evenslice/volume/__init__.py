"""Pixels and coordinates: reading, windows, normalisation, tiles. numpy only."""
