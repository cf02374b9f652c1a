"""A warm fork-server: a process that has imported everything and forks nodes and clients.

A fork is ready in some milliseconds, where a new interpreter takes most of a second. The
zygote is single-threaded, dies with the process that started it, and what it forks dies with
it, so that nothing outlives a killed driver.

Run as ``python -m orchestrator.runtimes._zygote SOCKET_FD PARENT_PID NICENESS``. Each byte that
comes over the socket carries two file descriptors (control socket, lifeline) and forks one child;
its process id goes back.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import struct
import sys
from contextlib import suppress

from orchestrator.runtimes._lifetime import die_with_parent

PID = struct.Struct("<i")


def main() -> None:
    """Serve forks until the socket closes."""
    control = socket.socket(fileno=int(sys.argv[1]))
    die_with_parent(int(sys.argv[2]))
    # Ray's workers give way to everybody else on the host; what is measured must not, where that
    # is allowed.
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, int(sys.argv[3]))
    from orchestrator.runtimes import _child

    _child.preload()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.freeze()
    me = os.getpid()
    control.sendall(PID.pack(me))
    while True:
        data, files, _, _ = socket.recv_fds(control, 1, 2)
        if not data:
            os._exit(0)
        child = os.fork()
        if child == 0:
            die_with_parent(me)
            control.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _child.main(files[0], files[1])
            os._exit(0)
        # One group with what it will start itself, so that a fault strikes all of it.
        with suppress(ProcessLookupError):
            os.setpgid(child, child)
        for file in files:
            os.close(file)
        control.sendall(PID.pack(child))


if __name__ == "__main__":
    main()
