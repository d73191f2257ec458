"""What is known of a machine and of a container engine: dataclasses only, which everything else may import."""
