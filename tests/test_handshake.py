"""Proofs of belonging to a run."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from orchestrator.runtimes import _handshake
from orchestrator.runtimes._handshake import (
    NONCE_BYTES,
    PROOF_BYTES,
    SECRET_BYTES,
    Credentials,
    client_proof,
    hello_proof,
    node_proof,
    welcome_proof,
)

SECRET, OTHER = bytes(range(32)), bytes(range(1, 33))
ONE, TWO = b"1" * NONCE_BYTES, b"2" * NONCE_BYTES


def test_a_proof_is_the_hmac_of_all_that_was_said() -> None:
    """Against HMAC-SHA256 as RFC 2104 builds it from two hashes."""
    label = b"archbench: the node that connects"
    parts = [label, ONE, TWO, (3).to_bytes(8, "big"), (4).to_bytes(8, "big")]
    message = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    key = SECRET.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in key) + message).digest()
    outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in key) + inner).digest()
    assert hello_proof(SECRET, ONE, TWO, 3, 4) == outer
    assert len(outer) == PROOF_BYTES


def test_no_proof_stands_for_another() -> None:
    proofs = [
        make(secret, first, second, *nodes)
        for secret in (SECRET, OTHER)
        for first, second in ((ONE, TWO), (TWO, ONE), (ONE, ONE))
        for make in (hello_proof, welcome_proof)
        for nodes in ((0, 1), (1, 0), (0, 2), (1, 2))
    ]
    proofs += [
        make(secret, first, second, node)
        for secret in (SECRET, OTHER)
        for first, second in ((ONE, TWO), (TWO, ONE))
        for make in (node_proof, client_proof)
        for node in (0, 1)
    ]
    assert len(set(proofs)) == len(proofs)
    # Nor does moving the border between two parts.
    assert node_proof(SECRET, ONE + b"x", TWO, 0) != node_proof(SECRET, ONE, b"x" + TWO, 0)


def test_every_run_has_a_secret_of_its_own_that_shows_nowhere() -> None:
    first, second = Credentials.fresh("pass"), Credentials.fresh("pass")
    assert first.secret != second.secret
    assert len(first.secret) == SECRET_BYTES
    assert first.server_password != second.server_password
    assert first.secret.hex() != first.server_password
    assert repr(first) == "Credentials()"
    nonces = {_handshake.nonce() for _ in range(1000)}
    assert len(nonces) == 1000
    assert {len(nonce) for nonce in nonces} == {NONCE_BYTES}


def test_comparing_goes_by_the_constant_time_function(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[bytes, bytes]] = []
    plain = hmac.compare_digest

    def noted(one: bytes, other: bytes) -> bool:
        asked.append((one, other))
        return plain(one, other)

    monkeypatch.setattr(hmac, "compare_digest", noted)
    assert _handshake.same(b"a", b"a")
    assert not _handshake.same(b"a", b"b")
    assert Credentials(SECRET, "ü\udcff").accepts_password("ü".encode() + b"\xff")
    assert not Credentials(SECRET, "x").accepts_password(b"X")
    assert len(asked) == 4
    assert not Credentials(SECRET).accepts_password(b"")
