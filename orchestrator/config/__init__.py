"""From YAML and overrides to one typed, frozen, hashed configuration."""
