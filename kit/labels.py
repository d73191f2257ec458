"""The names of the labels kit puts on containers that more than one part of it reads."""

from __future__ import annotations

LEASE = "kit.lease"  # UUIDs of the GPUs that are the container's alone
# Who started it, by number and by name: another than the user it runs as (`kit run --user`).
OWNER, OWNER_NAME = "kit.owner", "kit.owner-name"
