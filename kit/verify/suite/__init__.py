"""The checks of an image, for pytest; `kit verify` runs them, each against what the catalog and the lock promise."""
