"""Training: patches, losses, the Lightning module."""
