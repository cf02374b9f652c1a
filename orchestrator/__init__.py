"""archbench: which distributed architecture to run, and how sure one may be of it."""

__version__ = "0.1.0"
