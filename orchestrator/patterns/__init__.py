"""What cache tiers do with reads and writes, one file each."""
