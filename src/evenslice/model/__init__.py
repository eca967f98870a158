"""Networks that see slices: building, their stems, their files, their predictions."""
