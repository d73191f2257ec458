"""The names of the labels kit puts on containers and images; other versions of kit read them, so a name stays."""

from __future__ import annotations

# On containers; the first two are on images too.
IMAGE = "kit.image"  # its name in the catalog
ENVIRONMENT = "kit.environment"  # of a project's own: the hash of what its kit.lock adds to the image
SERVICE = "kit.service"  # "jupyter", "tensorboard" …; empty for a command
USER = "kit.user"  # UID:GID it runs as
GPUS = "kit.gpus"  # the devices it was given
LEASE = "kit.lease"  # UUIDs of the GPUs that are the container's alone
CLIENT = "kit.client"  # "compose", or host name and PID of the kit that started it
BOUND = "kit.bound"  # the process that it goes with, and is removed after if that was killed
# Who started it, by number and by name: another than the user it runs as (`kit run --user`).
OWNER, OWNER_NAME = "kit.owner", "kit.owner-name"

# On the volume beside an image that kit made: the ID the engine gave that image.
IMAGE_ID = "kit.image-id"

# On images, from the catalog and the lock: written into the Dockerfile.
FRAMEWORK, FRAMEWORK_VERSION = "kit.framework", "kit.framework-version"
CUDA, CUDNN, CUDA_PROVIDER = "kit.cuda", "kit.cudnn", "kit.cuda-provider"
MIN_DRIVER = "kit.min-driver"
COMPUTE_CAPABILITIES, PTX = "kit.compute-capabilities", "kit.ptx"
LOCK_HASH, UV = "kit.lock-hash", "kit.uv"
DEVCONTAINER = "devcontainer.metadata"  # for VS Code and the devcontainer command, by their specification

# On images, from what they were built of.
FINGERPRINT = "kit.fingerprint"
BASE, BASE_SOURCE, BASE_IDENTITY = "kit.base", "kit.base-source", "kit.base-identity"
PYTHON = "kit.python"

# On base images that kit makes.
BASE_SUITE, BASE_PACKAGES, BASE_EPOCH = "kit.base.suite", "kit.base.packages", "kit.base.epoch"
