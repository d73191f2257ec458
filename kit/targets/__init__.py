"""The forms in which a container is written down, one file each: the engines' arguments, a compose file. Pure."""
