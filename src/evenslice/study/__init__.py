"""The experiment: a grid of cells, trained, audited, scored and compared with paired tests."""
