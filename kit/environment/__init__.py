"""A project's own environment: what kit.toml declares of it, and kit.lock, which says what exactly that is.

It stands on an image of the catalog: the image's lock is what the project's packages are solved beside, and one more
layer on the image holds them. The image's framework, CUDA and what is compiled against them cannot move.
"""
