"""Roles, limits, CSRF tokens, names, and the throttle of wrong passwords."""

from __future__ import annotations

import pytest

from receiver.console.who import Role, SignInThrottle, Who, account_name, joined_scope


def test_each_role_includes_those_below_it() -> None:
    """And no other."""
    ladder = list(Role)
    for number, role in enumerate(ladder):
        assert ladder[: number + 1] == [other for other in ladder if role.includes(other)]


@pytest.mark.parametrize("via", ["session", "proxy"])
def test_what_a_browser_sends_by_itself_needs_a_form_of_ours(via: str) -> None:
    """A token does not."""
    assert Who("jane", Role.VIEWER, via, "key").is_ambient
    assert not Who("jane", Role.VIEWER, "token 1a2b", "key").is_ambient


def test_a_csrf_token_is_good_for_one_session_and_one_secret() -> None:
    """Nothing else is taken for it."""
    who = Who("jane", Role.VIEWER, "session", "key")
    token = who.csrf_token(b"secret")
    assert who.is_csrf_token(token, b"secret")
    assert not who.is_csrf_token("", b"secret")
    assert not who.is_csrf_token("ü", b"secret")
    assert not who.is_csrf_token(token, b"another secret")
    assert not Who("jane", Role.VIEWER, "session", "other").is_csrf_token(token, b"secret")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        *(("jane", "jane"), (" Jane ", "jane"), ("JANE@Example.com", "jane@example.com")),
        *(("Ärzte", "ärzte"), ("A\u0308rzte", "ärzte"), ("Straße", "strasse")),
    ],
)
def test_names_are_the_same_in_upper_and_lower_case(text: str, name: str) -> None:
    """However their letters are composed."""
    assert name == account_name(text)


@pytest.mark.parametrize("text", ["", "  ", "a\nb", "a\u202eb", "x" * 101])
def test_what_nobody_can_see_is_no_name(text: str) -> None:
    """Logs and pages show names."""
    with pytest.raises(ValueError, match="visible"):
        account_name(text)


def test_the_limits_of_both_count_together() -> None:
    """What contradicts itself would leave nothing, and is an error."""
    assert {"a": "1", "b": "2"} == joined_scope({"a": "1"}, {"a": "1", "b": "2"})
    with pytest.raises(ValueError, match="a=1"):
        joined_scope({"a": "1"}, {"a": "2"})


def test_wrong_passwords_of_one_address_are_slowed_down() -> None:
    """Five at once, and then one every 30 s; another address is not held up by it."""
    throttle = SignInThrottle()
    assert [True] * 5 + [False] == [throttle.take("jane", "10.0.0.1", 1000.0) for _ in range(6)]
    assert throttle.take("JANE ", "10.0.0.2", 1000.0)
    assert not throttle.take(" Jane", "10.0.0.1", 1029.0)
    assert throttle.take("jane", "10.0.0.1", 1062.0)


def test_many_addresses_together_are_slowed_down_too() -> None:
    """Twenty of one account at once, thirty of one address."""
    throttle = SignInThrottle()
    of_account = [throttle.take("jane", f"10.0.0.{n}", 1000.0) for n in range(21)]
    assert [True] * 20 + [False] == of_account
    of_address = [throttle.take(f"user {n}", "10.1.1.1", 1000.0) for n in range(31)]
    assert [True] * 30 + [False] == of_address


def test_who_is_right_is_not_counted() -> None:
    """However often."""
    throttle = SignInThrottle()
    for _ in range(50):
        assert throttle.take("jane", "10.0.0.1", 1000.0)
        throttle.give_back("jane", "10.0.0.1")
