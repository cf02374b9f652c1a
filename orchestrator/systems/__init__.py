"""What is put under test: one file a system."""
