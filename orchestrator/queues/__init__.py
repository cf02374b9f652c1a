"""What waits for a node's CPU, and what is turned away: one file each."""
