"""`python -m kit.tunnels ID LOCK PORT OPENER ORDER`: the supervisor of one tunnel. Only `open_tunnel` starts it."""

import sys

from kit.tunnels.supervisor import main

if __name__ == "__main__":
    main(sys.argv[1:])
