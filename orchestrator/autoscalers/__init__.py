"""How many cores a node should have: one file each."""
