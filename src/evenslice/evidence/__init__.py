"""How much each slot counts, and what can be said about it."""
