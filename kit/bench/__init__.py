"""Measure what a GPU delivers through PyTorch or TensorFlow, and say whether that is what its silicon can do.

All but the modules of HOST_MODULES run under the Python of any image, from 3.8 on, with nothing but the standard
library and the framework: no import of kit's other parts, no syntax or library of a newer Python.
"""

from __future__ import annotations

SCHEMA = 1  # of the saved result; a file of another one is refused
METHOD = 1  # raised when a number would come out differently for the same GPU: results of two methods do not compare
HOST_MODULES = ("host_side", "saved", "compare", "report")
