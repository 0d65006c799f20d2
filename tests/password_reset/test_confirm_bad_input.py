"""Malformed input to the form for the new password."""

import io

import pytest

from tests.support.pages import csrf_token
from tests.support.passwords import NEW_PASSWORD, PASSWORD
from tests.support.reset_pages import send


def test_form_without_its_csrf_token_is_refused(visitor, form_page, stored, alice) -> None:
    fields = {"new_password1": NEW_PASSWORD, "new_password2": NEW_PASSWORD}
    assert visitor.client.post(form_page.request.path, data=fields).status_code == 400
    assert stored(alice).check_password(PASSWORD)


def test_form_posted_by_another_site_is_refused(visitor, form_page) -> None:
    fields = {"csrf_token": csrf_token(form_page), "new_password1": NEW_PASSWORD, "new_password2": NEW_PASSWORD}
    answer = visitor.client.post(form_page.request.path, data=fields, headers={"Origin": "https://evil.example"})
    assert answer.status_code == 400


@pytest.mark.parametrize("value", [NEW_PASSWORD, 5, None, [NEW_PASSWORD], {}])
def test_json_is_refused_even_with_a_csrf_token(value, visitor, form_page, stored, alice) -> None:
    headers = {"X-CSRFToken": csrf_token(form_page)}
    body = {"new_password1": value, "new_password2": value}
    assert visitor.client.post(form_page.request.path, json=body, headers=headers).status_code == 400
    assert stored(alice).check_password(PASSWORD)


def test_repeated_field_is_refused(visitor, form_page) -> None:
    answer = send(visitor, form_page, new_password1=[NEW_PASSWORD, "another"], new_password2=NEW_PASSWORD)
    assert answer.status_code == 400


def test_file_in_place_of_a_password_is_refused(visitor, form_page) -> None:
    answer = send(visitor, form_page, new_password1=(io.BytesIO(b"x"), "x.txt"), new_password2=NEW_PASSWORD)
    assert answer.status_code == 400


def test_body_of_a_megabyte_is_refused(visitor, form_page, stored, alice) -> None:
    answer = send(visitor, form_page, new_password1="x" * 1_000_000, new_password2="x")
    assert answer.status_code == 413
    assert stored(alice).check_password(PASSWORD)


def test_body_of_five_thousand_fields_sets_nothing(visitor, form_page, stored, alice) -> None:
    answer = send(visitor, form_page, **{f"f{number}": "" for number in range(5_000)})
    assert answer.status_code < 500
    assert stored(alice).check_password(PASSWORD)
