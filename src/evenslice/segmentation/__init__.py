"""Whole volumes: plan, blocks, objects, cluster."""
