"""The experiment: a grid of cells, each trained, audited and scored, compared with paired statistics."""
