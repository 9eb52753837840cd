"""The exception tree: codes, messages and its drawing in the docstring."""

import re

import pytest

from pixyproxy.core import exceptions
from pixyproxy.core.exceptions import OAuthException, OAuthRequestException, PixyProxyException

CLASSES = [kind for kind in vars(exceptions).values() if isinstance(kind, type) and issubclass(kind, Exception)]

SHARING = (OAuthException, OAuthRequestException)
"""``invalid_request`` is RFC 6749's code for both, and also the code for an invalid model."""


def _drawn() -> dict[str, str]:
    """Return each class drawn in the docstring's tree, mapped to its parent."""
    parents: dict[str, str] = {}
    path: list[str] = []
    for line in (exceptions.__doc__ or "").splitlines():
        match = re.match(r"    ((?:[│ ]   )*)(?:[├└]── )?(\w+Exception)\b", line)
        if match is None:
            continue
        depth = (match.start(2) - 4) // 4
        path = [*path[:depth], match[2]]
        parents[match[2]] = path[-2] if depth else ""
    return parents


def test_docstring_draws_the_actual_tree() -> None:
    assert _drawn() == {
        kind.__name__: "" if kind is PixyProxyException else kind.__bases__[0].__name__ for kind in CLASSES
    }


def test_every_class_has_a_unique_code() -> None:
    codes = [kind.__dict__.get("code") for kind in CLASSES if kind not in SHARING]
    assert all(isinstance(code, str) and re.fullmatch(r"[a-z][a-z_]+", code) for code in codes)
    assert len(set(codes)) == len(codes) > 30


@pytest.mark.parametrize("kind", SHARING, ids=lambda kind: kind.__name__)
def test_classes_that_share_a_code_use_the_standard_one(kind: type[PixyProxyException]) -> None:
    assert kind.code == "invalid_request"


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_class_has_its_own_message(kind: type[PixyProxyException]) -> None:
    assert ("default_message" in kind.__dict__) is (kind is not OAuthRequestException)
    assert kind.default_message.endswith(".")
    assert kind().message == str(kind()) == kind.default_message


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_class_accepts_message_retry_after_and_context(kind: type[PixyProxyException]) -> None:
    error = kind("words", retry_after_seconds=7, context={"guid": "x"})
    assert (error.message, error.retry_after_seconds, error.context) == ("words", 7, {"guid": "x"})
    assert kind().context == {}


def test_retry_after_of_one_instance_does_not_affect_others() -> None:
    exceptions.UpstreamBusyException(retry_after_seconds=99)
    assert exceptions.UpstreamBusyException().retry_after_seconds == 20
    assert exceptions.UpstreamBusyException(retry_after_seconds=0).retry_after_seconds == 0
