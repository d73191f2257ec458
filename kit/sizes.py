"""Numbers of bytes, as people read them."""

from __future__ import annotations


def in_bytes(size: float) -> str:
    """`1.2 GB`."""
    for unit in ("bytes", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" or size >= 10 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
