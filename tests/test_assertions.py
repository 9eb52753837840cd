"""Every test can fail: its assertions always run, check something, and expect one outcome."""

from pathlib import Path
from textwrap import dedent, indent

import pytest

from tests.support.assertions import findings_in

TESTS = Path(__file__).parent
REFUSED = {
    "or": """
        assert status == 422 or body == []
        """,
    "or behind and": """
        assert body and (status == 422 or body == [1])
        """,
    "not and": """
        assert not (status and body)
        """,
    "a conditional expression": """
        assert status == 200 if body else status == 404
        """,
    "one of several": """
        assert status in {200, 404}
        """,
    "if": """
        if status == 200:
            assert body == []
        """,
    "else": """
        if status == 200:
            body = [1]
        else:
            assert_problem(body)
        """,
    "raises under if": """
        if status:
            with pytest.raises(ValueError):
                body.remove(1)
        """,
    "while": """
        while body:
            assert body.pop()
        """,
    "match": """
        match status:
            case 200:
                assert body
        """,
    "except": """
        try:
            body.remove(1)
        except ValueError:
            assert status == 404
        """,
    "try with except": """
        try:
            assert body.remove(1) is None
        except ValueError:
            status = 404
        """,
    "suppress": """
        with contextlib.suppress(ValueError):
            assert body.index(1) == 0
        """,
    "behind the exception": """
        with pytest.raises(ValueError):
            body.remove(1)
            assert body == []
        """,
    "an early return": """
        if status == 200:
            return
        assert body == []
        """,
    "continue": """
        for number in (1, 2):
            if number in body:
                continue
            assert status == 404
        """,
    "all": """
        assert all(item == 1 for item in body)
        """,
    "all of some of the items": """
        assert all(number == 1 for number in (1, 2) if number in body)
        """,
    "not any": """
        assert not any(item == 1 for item in body)
        """,
    "a loop": """
        for item in body:
            assert item == 1
        """,
    "a loop in a loop": """
        for number in (1, 2):
            for item in body:
                assert item == number
        """,
    "a loop whose own assertion names its items": """
        for number, item in enumerate(body):
            assert body[number] == item
        """,
    "a loop with an assertion that holds for an empty sequence": """
        assert set(body) <= {1}
        for item in body:
            assert item == 1
        """,
    "a loop over a variable": """
        items = sorted(body)
        for item in items:
            assert_problem(item)
        """,
    "a loop over some of the items": """
        items = [number for number in (1, 2) if number in body]
        for item in items:
            assert item == 1
        """,
    "nothing": """
        body.append(status)
        """,
}
ACCEPTED = {
    "and": """
        assert status == 200 and body == []
        """,
    "neither": """
        assert not (status == 404 or body)
        """,
    "or as a value": """
        assert body == (status or [])
        """,
    "a named set of outcomes": """
        assert status in BEFORE_AND_AFTER
        """,
    "try with finally": """
        try:
            assert body == []
        finally:
            body.clear()
        """,
    "the end of an exception": """
        with pytest.raises(ValueError):
            body.remove(1)
        """,
    "the call of a function that asserts": """
        assert_problem(body)
        """,
    "a loop that always starts": """
        while True:
            assert body.pop()
            if not body:
                break
        """,
    "a bounded wait": """
        wait_until(lambda: body == [])
        """,
    "a return of another function": """
        def found():
            if body:
                return 1
            return 2
        assert status == found()
        """,
    "a loop over literals": """
        for number in (1, 2):
            assert number in body
        """,
    "a loop over constants": """
        for number, name in enumerate(sorted(NAMES)):
            assert body[number] == name
        """,
    "a loop over a range": """
        for number in range(2 * COUNT + 1):
            assert number in body
        """,
    "a loop over an asserted value": """
        assert len(body) == 2
        for item in body:
            assert item == 1
        """,
    "a loop over a compared value": """
        for item in body:
            assert item == 1
        assert 5 < len(body)
        """,
    "a loop over a value made of literals": """
        items = [body[number] for number in range(3)]
        for item in items:
            assert item == 1
        """,
    "all of an asserted value": """
        assert body
        assert all(item == 1 for item in body)
        """,
    "a list of wrong items": """
        assert [item for item in body if item != 1] == []
        """,
}


def function_of(body: str) -> str:
    return f"def test_x(status, body):\n{indent(dedent(body), '    ')}"


@pytest.mark.parametrize("name", REFUSED)
def test_a_test_that_may_pass_without_checking_anything_is_rejected(name: str) -> None:
    assert len(findings_in(function_of(REFUSED[name]))) == 1


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_test_that_can_fail_is_accepted(name: str) -> None:
    assert findings_in(function_of(ACCEPTED[name])) == []


def test_every_test_can_fail() -> None:
    modules = sorted(TESTS.rglob("*.py"))
    assert Path(__file__) in modules
    findings = [
        f"{path.relative_to(TESTS.parent)}:{line}: {reason}"
        for path in modules
        for line, reason in findings_in(path.read_text())
    ]
    assert findings == [], "\n".join(["", *findings])
