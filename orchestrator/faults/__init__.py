"""What breaks: one plug-in a file."""
