"""Consistency checkers: one file a level or family of levels."""
