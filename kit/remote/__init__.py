"""Other machines over SSH: one shared connection, folders that follow, tunnels that stay."""
