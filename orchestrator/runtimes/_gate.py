"""Who may give commands on a connection to a node: own clients by the run's secret. Plain Redis
clients where such are served at all: by the password, or without one only from the node's own
machine.
"""

from __future__ import annotations

import functools
import ipaddress
from typing import Any, Final

from orchestrator.runtimes import _handshake
from orchestrator.runtimes._administration import OK, RESP2, Failure, Value, encode
from orchestrator.runtimes._handshake import NONCE_BYTES, Credentials

FAILURES_MAX: Final = 3
"""Wrong passwords on one connection, after which it ends."""
PASSWORD_VARIABLE: Final = "ARCHBENCH_PASSWORD"
"""The environment variable that holds the password; a command line would show it to everybody."""

NO_PROOF: Final = encode(
    Failure("NOPROOF this command is for clients of the run, after ABHELLO and ABPROOF"), RESP2
)
TOO_MANY: Final = encode(Failure("ERR max number of clients reached"), RESP2)

_USER: Final = b"default"
_WRONG: Final = Failure("WRONGPASS invalid username-password pair or user is disabled.")
_NO_AUTH: Final = Failure("NOAUTH Authentication required.")
_OF_THE_RUN: Final = Failure(
    "NOAUTH Authentication required. This node serves the clients of its run only; 'archbench"
    " serve' starts one for others."
)
_FROM_ELSEWHERE: Final = Failure(
    "NOAUTH Authentication required. This node has no password, so it serves plain clients on a"
    f" loopback address only; set {PASSWORD_VARIABLE} where it is started."
)
_NONE_SET: Final = Failure(
    "ERR AUTH <password> called without any password configured for the default user. Are you"
    " sure your configuration is correct?"
)


class Gate:
    """What was proven on one connection."""

    def __init__(self, credentials: Credentials, node: int, local_address: Any) -> None:
        self._credentials = credentials
        self._node = node
        # Why no plain client is served here, whatever it says.
        self._shut: Failure | None = None
        free = credentials.password is None
        if not credentials.plain_clients:
            self._shut = _OF_THE_RUN
        elif free and not is_loopback(local_address):
            self._shut = _FROM_ELSEWHERE
        self._failures = 0
        self._nonces: tuple[bytes, bytes] | None = None
        self.open = free and self._shut is None

    @property
    def refusal(self) -> Failure:
        """The answer to a command while the gate is shut."""
        return self._shut or _NO_AUTH

    @property
    def exhausted(self) -> bool:
        """Whether there were too many wrong passwords."""
        return self._failures >= FAILURES_MAX

    def authenticate(self, user: bytes | None, password: bytes) -> Value:
        """``AUTH [user] password``; user None: not given."""
        if self._shut is not None:
            return self._shut
        if self._credentials.password is None:
            # As in Redis, a user without a password accepts any, if named.
            if user is None:
                return _NONE_SET
            return OK if user == _USER else _WRONG
        if user in (None, _USER) and self._credentials.accepts_password(password):
            self.open = True
            return OK
        self._failures += 1
        return _WRONG

    def greet(self, client_nonce: bytes) -> tuple[bytes, bytes] | None:
        """The node's nonce and proof for an own client; None where that is no nonce."""
        if len(client_nonce) != NONCE_BYTES:
            return None
        self._nonces = (client_nonce, _handshake.nonce())
        proof = _handshake.node_proof(self._credentials.secret, *self._nonces, self._node)
        return self._nonces[1], proof

    def prove(self, proof: bytes) -> bool:
        """Whether the client's proof is right; each greeting is good for one attempt."""
        if self._nonces is None:
            return False
        nonces, self._nonces = self._nonces, None
        expected = _handshake.client_proof(self._credentials.secret, *nonces, self._node)
        return _handshake.same(proof, expected)


def is_loopback(socket_name: Any) -> bool:
    """Whether an address as sockets name it (host first) is of this machine alone."""
    return bool(socket_name) and _loopback_host(str(socket_name[0]))


@functools.lru_cache(maxsize=64)
def _loopback_host(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
