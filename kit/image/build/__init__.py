"""From a name to an image in the engine: check the lock, choose the base, build, label with the inputs; or bring the
image there from elsewhere.

`kit run` needs to know whether an image is up to date (`inputs`), and seldom how one is built (`images`, `transfer`).
"""
