"""Images: their bases, building them, bringing them where they run."""
