"""The names of the labels kit puts on containers."""

from __future__ import annotations

IMAGE, SERVICE = "kit.image", "kit.service"
USER = "kit.user"  # UID:GID it runs as
GPUS = "kit.gpus"  # the devices it was given
LEASE = "kit.lease"  # UUIDs of the GPUs that are the container's alone
CLIENT = "kit.client"  # HOST:PID of the kit that started it
# Who started it, by number and by name: another than the user it runs as (`kit run --user`).
OWNER, OWNER_NAME = "kit.owner", "kit.owner-name"
