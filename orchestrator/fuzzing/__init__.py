"""Seeded simulations under faults: drawing them, running them, judging and minimising them."""
