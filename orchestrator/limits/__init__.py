"""How many operations a client has under way at most: one file each."""
