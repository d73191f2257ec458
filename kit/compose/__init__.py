"""A compose file that starts what `kit run` starts, for this machine or one behind SSH."""
