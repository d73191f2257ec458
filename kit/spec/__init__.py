"""What runs, described: the container, the GPUs asked for and granted, volumes. Pure: nothing here asks a machine."""
