"""What all pages have in common that a mailed link opens.

Decides when a link is good and what is shown where it is not: one page, with status 200 as in Django, the same for
every reason but the sentence that says expired or no longer valid. It must not change anything.
"""

from typing import Any, ClassVar

from flask.typing import ResponseReturnValue

from pwreset import accounts
from pwreset.generic import FormView
from pwreset.models import User
from pwreset.password_reset.tokens import TokenError, TokenExpired, TokenInvalid, decode_uid, token_generator


class MailedLinkView(FormView):
    """Shows a form to whoever has a valid link, and a page without one to everybody else.

    Option beside those of `FormView`: `dead_title`.
    """

    dead_title = "This link does not work"
    _purposes: ClassVar[tuple[str, ...]] = ()
    user: User
    _purpose: str | None = None

    def dispatch_request(self, *, uidb64: str, token: str) -> ResponseReturnValue:  # type: ignore[override]
        """Check the link, then go on as with any form. The rule must name both arguments."""
        try:
            self.open_link(uidb64, token)
        except TokenError as error:
            return self.dead_link(expired=isinstance(error, TokenExpired))
        return self.show_or_submit()

    def open_link(self, uidb64: str, token: str) -> None:
        """Find out whose link it is and for what.

        Raises:
            TokenExpired: if it would have been valid.
            TokenInvalid: otherwise.
        """
        user_id = decode_uid(uidb64)
        user = accounts.find_by_id(user_id) if user_id else None
        self.user, self._purpose = self._check(user, token)

    def show_or_submit(self) -> ResponseReturnValue:
        """Show the form, or do what it is for."""
        return super().dispatch_request()

    def get_context_data(self, **context: Any) -> dict[str, Any]:
        """Add what the page shows: the account, or that the link is dead."""
        if self._purpose is None:
            return super().get_context_data(validlink=False, form=None, **context) | {"title": self.dead_title}
        return super().get_context_data(validlink=True, user=self.user, **context)

    def dead_link(self, *, expired: bool, reopen: bool = False) -> str:
        """Render the page without a form."""
        self._purpose = None
        return self.render(expired=expired, reopen=reopen)

    def _check(self, user: User | None, token: str) -> tuple[User, str]:
        if user is None or not user.is_active:
            raise TokenInvalid
        generators = [token_generator(purpose) for purpose in self._purposes]
        for generator, purpose in zip(generators, self._purposes, strict=True):
            if generator.check_token(user, token):
                return user, purpose
        raise TokenExpired if any(generator.has_expired(user, token) for generator in generators) else TokenInvalid
