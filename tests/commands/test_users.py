"""`flask users`: what each command prints, changes and returns to the shell."""

import io
import re

import pytest
from sqlalchemy import select

from pwreset import accounts
from pwreset.extensions import db
from pwreset.models import OutboxMessage
from tests.support.app import Visitor, add_user
from tests.support.pages import link_in, path_of
from tests.support.passwords import NEW_PASSWORD, PASSWORD

ALICE = "alice@example.com"
UNUSABLE = ["", " ", "alice", "alice@", "@example.com", "alice@example", "a b@example.com", "a@b@example.com"]
UNUSABLE += ["alice@exam_ple.com", "alice@example.com\nbob@example.com", f"{'x' * 300}@example.com"]
COMMANDS = ["create", "set-password", "invite", "deactivate", "activate", "reset-link", "events"]
NEED_AN_ACCOUNT = [command for command in COMMANDS if command not in {"create", "invite"}]


@pytest.fixture
def users(app):
    """Return a function that runs `flask users ...`, as a shell would see it."""
    runner = app.test_cli_runner()

    def run(*arguments, stdin=""):
        result = runner.invoke(args=["users", *arguments], input=stdin)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert "Traceback" not in result.output
        return result

    return run


def find(app, address=ALICE):
    with app.app_context():
        return accounts.find(address)


def outbox_rows(app):
    with app.app_context():
        return [(row.kind, row.address) for row in db.session.scalars(select(OutboxMessage))]


def assert_one_line(result, text):
    """A failure is one line on standard error, and nothing on standard output."""
    assert result.exit_code == 1
    assert result.stderr == f"Error: {text}\n"
    assert result.stdout == ""


class TestCreate:
    """`flask users create`."""

    def test_an_account_with_the_password_from_standard_input_can_log_in(self, app, users, visitor):
        result = users("create", ALICE, "--password-stdin", stdin=f"{PASSWORD}\n")
        assert (result.exit_code, result.stdout, result.stderr) == (0, f"Created {ALICE}.\n", "")
        assert visitor.log_in().location == "/account/"

    def test_the_account_tells_who_set_its_password(self, users):
        users("create", ALICE, "--password-stdin", stdin=f"{PASSWORD}\n")
        assert "Password set by an administrator" in users("events", ALICE).stdout

    def test_no_email_is_sent(self, app, users):
        users("create", ALICE, "--password-stdin", stdin=f"{PASSWORD}\n")
        assert outbox_rows(app) == []

    def test_the_password_is_asked_for_twice_and_never_shown(self, app, users, visitor):
        result = users("create", ALICE, stdin=f"{PASSWORD}\n{PASSWORD}\n")
        assert result.exit_code == 0
        assert "Password: " in result.output
        assert "Repeat for confirmation: " in result.output
        assert PASSWORD not in result.output
        assert visitor.log_in().location == "/account/"

    def test_two_different_passwords_are_asked_for_again(self, app, users, visitor):
        answers = [PASSWORD, "another one", PASSWORD, PASSWORD]
        result = users("create", ALICE, stdin="\n".join(answers) + "\n")
        assert result.exit_code == 0
        assert "do not match" in result.output
        assert visitor.log_in().location == "/account/"

    @pytest.mark.parametrize("typed", ["", f"{PASSWORD}\n", f"{PASSWORD}\nanother one\n"])
    def test_breaking_off_at_the_prompt_creates_nothing(self, app, users, typed):
        result = users("create", ALICE, stdin=typed)
        assert result.exit_code == 1
        assert find(app) is None

    @pytest.mark.parametrize("end", ["", "\n", "\r\n", "\nmore lines\nthan one\n"])
    def test_the_password_on_standard_input_ends_with_the_line(self, app, users, visitor, end):
        assert users("create", ALICE, "--password-stdin", stdin=PASSWORD + end).exit_code == 0
        assert visitor.log_in().location == "/account/"

    def test_spaces_around_the_password_belong_to_it(self, app, users, visitor):
        users("create", ALICE, "--password-stdin", stdin=f"  {PASSWORD} \n")
        assert visitor.log_in(password=PASSWORD).status_code == 200
        assert visitor.log_in(password=f"  {PASSWORD} ").location == "/account/"

    @pytest.mark.parametrize("spelling", [ALICE, " Alice@EXAMPLE.com ", "ALICE@example.com", "ａｌｉｃｅ@example.com"])
    def test_a_second_account_under_another_spelling_is_refused(self, app, users, alice, visitor, spelling):
        result = users("create", spelling, "--password-stdin", stdin=f"{NEW_PASSWORD}\n")
        assert_one_line(result, "There is already an account with this address.")
        assert visitor.log_in().location == "/account/"

    def test_the_domain_is_stored_in_lower_case_and_the_name_as_given(self, app, users):
        assert users("create", " Alice@EXAMPLE.com", "--password-stdin", stdin=PASSWORD).stdout == (
            "Created Alice@example.com.\n"
        )


class TestPasswordRules:
    """What a password must be, for both commands that take one."""

    @pytest.mark.parametrize("command", ["create", "set-password"])
    @pytest.mark.parametrize(
        ("password", "complaints"),
        [
            ("tiny", ["too short. It must contain at least 15 characters"]),
            ("", ["too short"]),
            ("1234567", ["too short", "too common", "entirely numeric"]),
            ("alice@example.com", ["too similar to the"]),
            ("x" * 1025, ["too long"]),
            ("a tab\tin the middle of it", ["can’t be typed"]),
        ],
    )
    def test_every_complaint_stands_in_one_line_and_nothing_changes(
        self, app, users, visitor, command, password, complaints
    ):
        if command == "set-password":
            add_user(app, ALICE, PASSWORD)
        result = users(command, ALICE, "--password-stdin", stdin=f"{password}\n")
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith("Error: ")
        assert result.stderr.count("\n") == 1
        assert all(complaint in result.stderr for complaint in complaints)
        assert not password or password not in result.output
        assert visitor.log_in().status_code == (302 if command == "set-password" else 200)
        assert outbox_rows(app) == []

    def test_the_site_s_own_minimum_counts(self, make_app):
        app = make_app(PASSWORD_MIN_LENGTH=40)
        arguments = ["users", "create", ALICE, "--password-stdin"]
        result = app.test_cli_runner().invoke(args=arguments, input=f"{PASSWORD}\n")
        assert result.exit_code == 1
        assert "at least 40 characters" in result.stderr


class TestSetPassword:
    """`flask users set-password`."""

    def test_the_new_password_works_and_the_old_one_does_not(self, app, users, alice, visitor):
        result = users("set-password", ALICE, "--password-stdin", stdin=f"{NEW_PASSWORD}\n")
        assert (result.exit_code, result.stderr) == (0, "")
        assert result.stdout == "The password is set, every session has ended, and the owner gets an email.\n"
        assert visitor.log_in(password=PASSWORD).status_code == 200
        assert visitor.log_in(password=NEW_PASSWORD).location == "/account/"

    def test_every_session_and_link_ends(self, app, users, alice, visitor, inbox):
        visitor.log_in()
        link = inbox.reset_link()
        users("set-password", ALICE, "--password-stdin", stdin=f"{NEW_PASSWORD}\n")
        assert not visitor.is_signed_in()
        assert "new_password1" not in visitor.open_link(link).text

    def test_the_owner_is_notified_by_email(self, app, users, alice, inbox):
        users("set-password", ALICE, "--password-stdin", stdin=f"{NEW_PASSWORD}\n")
        assert outbox_rows(app) == [("password_changed", ALICE)]
        assert inbox.deliver_one()["To"] == ALICE

    def test_no_transaction_waits_for_somebody_to_type(self, users, alice):
        open_meanwhile = []

        class Typist(io.BytesIO):
            def read1(self, size=-1):
                open_meanwhile.append(db.session().in_transaction())
                return super().read1(size)

        typed = f"{NEW_PASSWORD}\n{NEW_PASSWORD}\n".encode()
        assert users("set-password", ALICE, stdin=Typist(typed)).exit_code == 0
        assert open_meanwhile
        assert not any(open_meanwhile)

    def test_a_prompt_asks_for_it(self, app, users, alice, visitor):
        assert users("set-password", ALICE, stdin=f"{NEW_PASSWORD}\n{NEW_PASSWORD}\n").exit_code == 0
        assert visitor.log_in(password=NEW_PASSWORD).location == "/account/"

    def test_an_account_without_a_password_gets_one(self, app, users, visitor):
        add_user(app, ALICE, None)
        assert users("set-password", ALICE, "--password-stdin", stdin=f"{PASSWORD}\n").exit_code == 0
        assert visitor.log_in().location == "/account/"

    def test_a_deactivated_account_is_refused_and_nobody_is_emailed(self, app, users, alice):
        users("deactivate", ALICE)
        before = find(app).password_hash
        result = users("set-password", ALICE, "--password-stdin", stdin=f"{NEW_PASSWORD}\n")
        assert_one_line(result, "The account is deactivated, or it just changed. Nothing was done.")
        assert find(app).password_hash == before
        assert outbox_rows(app) == []

    def test_an_unknown_address_is_named_before_a_password_is_asked_for(self, app, users):
        assert_one_line(users("set-password", ALICE), "There is no account with this address.")


class TestInvite:
    """`flask users invite`."""

    def test_the_emailed_link_leads_to_an_account_with_a_password(self, app, users, visitor, inbox):
        result = users("invite", ALICE)
        assert (result.exit_code, result.stderr) == (0, "")
        assert result.stdout == (
            "The invitation is in the outbox; the running site sends it, or `flask outbox drain` does.\n"
        )
        mail = inbox.deliver_one()
        assert mail["To"] == ALICE
        assert visitor.choose(link_in(mail), PASSWORD).location == "/password-reset-complete/"
        assert visitor.log_in().location == "/account/"

    def test_it_works_while_registration_is_closed(self, make_app):
        app = make_app(REGISTRATION_OPEN=False)
        assert app.test_cli_runner().invoke(args=["users", "invite", ALICE]).exit_code == 0
        assert outbox_rows(app) == [("register", ALICE)]

    def test_an_account_that_exists_is_not_invited(self, app, users, alice, inbox):
        result = users("invite", ALICE)
        assert (result.exit_code, result.stderr) == (1, "Error: There is already an account with this address.\n")
        assert inbox.waiting() == 0

    def test_a_deactivated_account_is_not_invited(self, app, users, alice, inbox):
        users("deactivate", ALICE)
        result = users("invite", ALICE)
        assert (result.exit_code, result.stderr) == (1, "Error: The account is deactivated.\n")
        assert inbox.waiting() == 0

    def test_an_account_without_a_password_is_invited_again(self, app, users, inbox):
        add_user(app, ALICE, None)
        assert users("invite", ALICE).exit_code == 0
        assert "/password-reset-confirm/" in link_in(inbox.deliver_one())


class TestDeactivateAndActivate:
    """`flask users deactivate` and `activate`."""

    def test_a_deactivated_account_has_no_session_no_link_no_login_and_no_email(
        self, app, users, alice, visitor, inbox
    ):
        visitor.log_in()
        link = inbox.reset_link()
        result = users("deactivate", ALICE)
        assert (result.exit_code, result.stderr) == (0, "")
        assert result.stdout == "Deactivated. Every session and outstanding link has ended.\n"
        assert not visitor.is_signed_in()
        assert "new_password1" not in visitor.open_link(link).text
        assert Visitor(app).log_in().status_code == 200
        before = len(inbox.emails())
        inbox.let_a_minute_pass()
        Visitor(app).request_reset()
        inbox.deliver()
        assert len(inbox.emails()) == before

    def test_activating_lets_the_owner_log_in_but_revives_no_session_and_no_link(
        self, app, users, alice, visitor, inbox
    ):
        visitor.log_in()
        link = inbox.reset_link()
        users("deactivate", ALICE)
        result = users("activate", ALICE)
        assert (result.exit_code, result.stdout, result.stderr) == (0, "Activated.\n", "")
        assert not visitor.is_signed_in()
        assert "new_password1" not in visitor.open_link(link).text
        assert visitor.log_in().location == "/account/"

    @pytest.mark.parametrize("command", ["deactivate", "activate"])
    def test_doing_it_twice_is_no_error(self, app, users, alice, command):
        assert [users(command, ALICE).exit_code for _ in range(2)] == [0, 0]
        assert find(app).is_active is (command == "activate")


class TestResetLink:
    """`flask users reset-link`."""

    def test_the_link_alone_is_on_standard_output_and_it_works_once(self, app, users, alice, visitor):
        result = users("reset-link", ALICE)
        assert result.exit_code == 0
        link = result.stdout.removesuffix("\n")
        assert link.startswith("http://127.0.0.1:5000/password-reset-confirm/")
        assert not any(letter.isspace() for letter in link)
        assert result.stderr == "It works once, within 1 hour. Anyone who has it can set the password.\n"
        assert visitor.choose(link).location == "/password-reset-complete/"
        assert visitor.log_in(password=NEW_PASSWORD).location == "/account/"
        assert "new_password1" not in Visitor(app).open_link(link).text

    def test_on_a_public_site_it_starts_with_the_site_s_origin(self, make_app):
        public = {"PUBLIC_URL": "https://accounts.example.com", "SECRET_KEY": "k3Yl-9aQzX7wPvT2bNcR5dMfG8hJsL4u6E0iOo"}
        app = make_app(**public, EMAIL_HOST="localhost", EMAIL_FROM="accounts@example.com")
        add_user(app, ALICE, PASSWORD)
        result = app.test_cli_runner().invoke(args=["users", "reset-link", ALICE])
        assert result.stdout.startswith("https://accounts.example.com/password-reset-confirm/")

    def test_an_account_without_a_password_gets_an_invitation_that_lives_longer(self, app, users, visitor):
        add_user(app, ALICE, None)
        result = users("reset-link", ALICE)
        assert "within 3 days" in result.stderr
        assert visitor.choose(result.stdout.strip(), PASSWORD).location == "/password-reset-complete/"
        assert visitor.log_in().location == "/account/"

    def test_it_emails_nothing_and_ends_no_session(self, app, users, alice, visitor):
        visitor.log_in()
        users("reset-link", ALICE)
        assert outbox_rows(app) == []
        assert visitor.is_signed_in()

    def test_a_deactivated_account_gets_none(self, app, users, alice):
        users("deactivate", ALICE)
        assert_one_line(users("reset-link", ALICE), "The account is deactivated.")

    def test_the_token_is_in_no_event(self, app, users, alice):
        token = path_of(users("reset-link", ALICE).stdout.strip()).rpartition("/")[2]
        assert token not in users("events", ALICE).output


class TestEvents:
    """`flask users events`."""

    def test_they_are_listed_newest_first_with_time_and_client(self, app, users, alice, visitor):
        visitor.log_in(password="not the password at all")
        visitor.log_in()
        users("set-password", ALICE, "--password-stdin", stdin=f"{NEW_PASSWORD}\n")
        users("reset-link", ALICE)
        users("deactivate", ALICE)
        users("activate", ALICE)
        result = users("events", ALICE)
        assert (result.exit_code, result.stderr) == (0, "")
        assert [line[21:] for line in result.stdout.splitlines()] == [
            "Account activated",
            "Account deactivated",
            "Reset link printed by an administrator",
            "Password set by an administrator",
            "Logged in  127.0.0.1",
            "Failed login  127.0.0.1",
        ]
        times = [line[:19] for line in result.stdout.splitlines()]
        assert times == sorted(times, reverse=True)

    def test_an_account_without_any_prints_nothing(self, app, users, alice):
        assert (users("events", ALICE).exit_code, users("events", ALICE).output) == (0, "")

    def test_other_accounts_events_are_not_among_them(self, app, users, alice):
        add_user(app, "bob@example.com", PASSWORD)
        users("deactivate", "bob@example.com")
        assert users("events", ALICE).output == ""


class TestEveryCommand:
    """What is the same for all of them."""

    @pytest.mark.parametrize("command", NEED_AN_ACCOUNT)
    def test_an_unknown_address_is_one_line_and_status_1(self, app, users, command):
        result = users(command, "nobody@example.com", stdin=f"{PASSWORD}\n{PASSWORD}\n")
        assert_one_line(result, "There is no account with this address.")

    @pytest.mark.parametrize("command", NEED_AN_ACCOUNT)
    def test_the_account_is_found_by_any_spelling_of_its_address(self, app, users, alice, command):
        result = users(command, " ALICE@EXAMPLE.COM ", stdin=f"{NEW_PASSWORD}\n{NEW_PASSWORD}\n")
        assert result.exit_code == 0

    @pytest.mark.parametrize("command", COMMANDS)
    @pytest.mark.parametrize("address", UNUSABLE)
    def test_what_is_no_address_is_bad_usage(self, app, users, command, address):
        result = users(command, "--", address)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "Error: Invalid value for 'EMAIL': " in result.stderr
        assert outbox_rows(app) == []

    @pytest.mark.parametrize("command", COMMANDS)
    @pytest.mark.parametrize("arguments", [(), (ALICE, "one too many"), (ALICE, "--no-such-option")])
    def test_wrong_arguments_are_bad_usage(self, app, users, alice, command, arguments):
        result = users(command, *arguments)
        assert (result.exit_code, result.stdout) == (2, "")
        assert re.match(rf"Usage: \S+ users {command} \[OPTIONS\] EMAIL\n", result.stderr)

    @pytest.mark.parametrize("command", COMMANDS)
    def test_it_explains_itself(self, app, users, command):
        result = users(command, "--help")
        assert result.exit_code == 0
        assert "EMAIL" in result.stdout

    def test_an_unknown_command_is_bad_usage(self, app, users):
        assert users("delete", ALICE).exit_code == 2

    def test_the_password_is_no_argument_that_others_on_the_machine_could_see(self, app, users):
        assert users("create", ALICE, PASSWORD).exit_code == 2
        assert find(app) is None
