"""What may enter a cache: one file each."""
