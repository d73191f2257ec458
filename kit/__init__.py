"""kit: reproducible GPU environments in containers."""

__version__ = "0.1.0"
