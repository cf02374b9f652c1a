"""From raw observations to figures with intervals and a verdict."""
