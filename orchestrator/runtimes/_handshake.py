"""How the parts of a run prove to each other that they are of it: a secret that only they know.

Every run draws :data:`SECRET_BYTES` at random; its processes are told at birth. A proof is an
HMAC-SHA256 under that secret over a label, which says who proves what to whom, and over what
both sides have said: a nonce of each, and the numbers of the nodes. So a proof is worth nothing
on another connection (the verifier's nonce is fresh), in the other direction (the label
differs), towards another node (its number is in it), or in another run (the secret differs).
This is mutual authentication in three passes as in ISO/IEC 9798-4, 5.2.2.

Nothing here is encrypted, and what follows on the connection is not authenticated again.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from typing import Final

SECRET_BYTES: Final = 32
NONCE_BYTES: Final = 16
PROOF_BYTES: Final = hashlib.sha256().digest_size
GREETING_S: Final = 5.0
"""Within which either side must have proven itself."""

# Who proves itself to whom.
_NODE_TO_NODE: Final = b"archbench: the node that connects"
_NODE_WELCOMES: Final = b"archbench: the node that accepts"
_NODE_TO_CLIENT: Final = b"archbench: a node to a client"
_CLIENT_TO_NODE: Final = b"archbench: a client to a node"
_PASSWORD: Final = b"archbench: the password of a real server"


@dataclass(frozen=True)
class Credentials:
    """What the processes of one run know and nobody else.

    ``plain_clients``: whether emulated nodes serve plain clients at all, and ``password`` what
    these must give; None: none is set.
    """

    secret: bytes = field(repr=False)
    password: str | None = field(default=None, repr=False)
    plain_clients: bool = field(default=False, repr=False)

    @classmethod
    def fresh(cls, password: str | None = None, *, plain_clients: bool = False) -> Credentials:
        """Of a new run."""
        return cls(secrets.token_bytes(SECRET_BYTES), password, plain_clients)

    @property
    def server_password(self) -> str:
        """What the real servers of the run ask for: 64 hexadecimal digits."""
        return _proof(self.secret, _PASSWORD).hex()

    def accepts_password(self, given: bytes) -> bool:
        """Whether a plain client gave the password that is set."""
        if self.password is None:
            return False
        return hmac.compare_digest(self.password.encode("utf-8", "surrogateescape"), given)


def nonce() -> bytes:
    """Fresh random bytes, for one attempt to prove something."""
    return secrets.token_bytes(NONCE_BYTES)


def hello_proof(
    secret: bytes, challenge: bytes, answer_nonce: bytes, node: int, acceptor: int
) -> bytes:
    """By which ``node`` proves itself to the ``acceptor`` that sent the challenge."""
    return _proof(secret, _NODE_TO_NODE, challenge, answer_nonce, _number(node), _number(acceptor))


def welcome_proof(
    secret: bytes, challenge: bytes, answer_nonce: bytes, node: int, acceptor: int
) -> bytes:
    """By which the ``acceptor`` proves itself to the ``node`` that sent ``answer_nonce``."""
    return _proof(secret, _NODE_WELCOMES, challenge, answer_nonce, _number(node), _number(acceptor))


def node_proof(secret: bytes, client_nonce: bytes, node_nonce: bytes, node: int) -> bytes:
    """By which a node proves itself to an own client."""
    return _proof(secret, _NODE_TO_CLIENT, client_nonce, node_nonce, _number(node))


def client_proof(secret: bytes, client_nonce: bytes, node_nonce: bytes, node: int) -> bytes:
    """By which an own client proves itself to a node."""
    return _proof(secret, _CLIENT_TO_NODE, client_nonce, node_nonce, _number(node))


def same(given: bytes, proof: bytes) -> bool:
    """Whether what was given is the proof; takes as long whatever differs."""
    return hmac.compare_digest(given, proof)


def _number(node: int) -> bytes:
    return node.to_bytes(8, "big", signed=True)


def _proof(secret: bytes, *parts: bytes) -> bytes:
    # With its length before each part, no two lists of parts give the same message.
    message = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return hmac.digest(secret, message, "sha256")
