"""Decisions over facts: which image fits, who may have which GPU, what is wrong with a machine. Pure."""
