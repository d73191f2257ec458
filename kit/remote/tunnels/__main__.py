"""`python -m kit.remote.tunnels ID LOCK PORT OPENER ORDER`: the supervisor of one tunnel, started by `open_tunnel`."""

import sys

from kit.remote.tunnels.supervisor import main

if __name__ == "__main__":
    main(sys.argv[1:])
