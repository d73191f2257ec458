"""Run a program that can change files in some folders alone, whatever links there are: FOLDER… -- PROGRAM…

The kernel holds it to that (Landlock, Linux 5.13 and newer); elsewhere the program runs as it is. Run by its path here,
and as a text on hosts: it needs nothing of kit's, nor of the folder it is started in, and any Python 3.
"""

import ctypes
import os
import struct
import sys

# linux/landlock.h: what changes files, from WRITE_FILE and REMOVE_DIR to MAKE_SYM; REFER and TRUNCATE came later.
WRITE, CHANGES, REFER, TRUNCATE = 1 << 1, 1 << 1 | 0x1FF << 4, 1 << 13, 1 << 14
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
GET_VERSION, PATH_BENEATH, PR_SET_NO_NEW_PRIVS = 1, 1, 38


def confine(folders: "list[str]") -> None:
    """Let this process, and what it becomes, change nothing but what is in these folders. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(CREATE_RULESET, None, 0, GET_VERSION) if sys.platform == "linux" else 0
    if version < 1:
        return
    handled = CHANGES | (REFER if version >= 2 else 0) | (TRUNCATE if version >= 3 else 0)
    ruleset = _checked(libc.syscall(CREATE_RULESET, struct.pack("Q", handled), 8, 0))
    # ssh opens these.
    for path, rights in (*((folder, handled) for folder in folders), ("/dev/null", WRITE), ("/dev/tty", WRITE)):
        try:
            handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        _checked(libc.syscall(ADD_RULE, ruleset, PATH_BENEATH, struct.pack("=Qi", rights, handle), 0))
    _checked(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _checked(libc.syscall(RESTRICT_SELF, ruleset, 0))


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


if __name__ == "__main__":
    split = sys.argv.index("--")
    confine(sys.argv[1:split])
    os.execvp(sys.argv[split + 1], sys.argv[split + 1 :])
