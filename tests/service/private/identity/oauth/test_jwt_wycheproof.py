"""The JSON Web Signature vectors of Project Wycheproof (C2SP/wycheproof, Apache-2.0).

They are in ``testvectors_v1/json_web_signature_test.json`` of that project. Put the file into the folder named by
``PIXYPROXY_TEST_VECTORS``, or into ``shared/vectors`` next to this project.
"""

import json
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from pixyproxy.core.exceptions import CredentialInvalidException
from pixyproxy.service.private.identity.oauth.jwt import public_key_from_jwk, verify_signature

BESIDE = Path(__file__).parents[6] / "shared" / "vectors"
FILE = Path(os.environ.get("PIXYPROXY_TEST_VECTORS", BESIDE)) / "json_web_signature_test.json"

EMPTY = "an empty payload holds no claims, and an empty part of a token is refused before any arithmetic"
MISNAMED = "the key says ES521, which is no algorithm (RFC 7518 §3.1 has ES512), and no key is used against its word"
DIFFERENCES = {259: EMPTY, 264: EMPTY, 268: EMPTY, 347: MISNAMED, 351: MISNAMED}
"""Valid vectors that we reject, unlike Wycheproof, by ``tcId``, and the reasons."""


@lru_cache(maxsize=1)
def groups() -> list[dict[str, Any]]:
    if not FILE.exists():
        pytest.skip(
            f"no {FILE.name}: get it from testvectors_v1 of C2SP/wycheproof (Apache-2.0) into the folder that "
            "PIXYPROXY_TEST_VECTORS names"
        )
    found: list[dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))["testGroups"]
    return found


def is_in_scope(group: dict[str, Any]) -> bool:
    """Return whether we support the type of the group's key, whatever its declared use."""
    jwk = group.get("public", {})
    return jwk.get("kty") in {"RSA", "EC"} and not str(jwk.get("alg", "")).startswith("PS")


def accepts(group: dict[str, Any], token: str) -> bool:
    """Return whether the token verifies with the group's public key, or with its only key if that is secret."""
    key = public_key_from_jwk(group.get("public", group.get("private")))
    if key is None:
        return False
    try:
        verify_signature(token, key)
    except CredentialInvalidException:
        return False
    return True


def vectors(*, in_scope: bool) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield each vector with its group."""
    for group in groups():
        if is_in_scope(group) == in_scope:
            yield from ((group, vector) for vector in group["tests"])


def test_vectors_in_scope_match_wycheproof() -> None:
    judged = {
        vector["tcId"]: (vector["result"] == "valid", accepts(group, vector["jws"]))
        for group, vector in vectors(in_scope=True)
    }
    assert len(judged) > 250
    assert {identity for identity, (expected, ours) in judged.items() if expected != ours} == set(DIFFERENCES)


def test_differences_from_wycheproof_are_stricter() -> None:
    results = {vector["tcId"]: vector["result"] for _, vector in vectors(in_scope=True)}
    assert {results[identity] for identity in DIFFERENCES} == {"valid"}


def test_correctly_named_key_verifies_the_vector_of_a_misnamed_key() -> None:
    renamed = [
        accepts({"public": {**group["public"], "alg": "ES512"}}, vector["jws"])
        for group, vector in vectors(in_scope=True)
        if DIFFERENCES.get(vector["tcId"]) is MISNAMED
    ]
    assert renamed == [True, True]


def test_vectors_out_of_scope_are_rejected() -> None:
    accepted = [accepts(group, vector["jws"]) for group, vector in vectors(in_scope=False)]
    assert len(accepted) > 100
    assert not any(accepted)
