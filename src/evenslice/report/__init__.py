"""The page that shows it. Formats; never computes."""
