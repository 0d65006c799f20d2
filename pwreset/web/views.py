"""Two class-based views after Django's `TemplateView` and `FormView`, as far as the password views need them.

Decides how options reach a view: as class attributes that `as_view` may override by name, and nothing else.
"""

from collections.abc import Callable
from inspect import isroutine
from typing import Any, ClassVar

from flask import redirect, render_template, url_for
from flask.typing import ResponseReturnValue
from flask.views import View
from flask_wtf import FlaskForm

from pwreset import accounts
from pwreset.accounts.tokens import TokenError, TokenExpired, TokenInvalid, decode_uid, token_generator
from pwreset.models import User


class TemplateView(View):
    """Renders a template with a title.

    Options: `template_name`, `title`, and `extra_context` (a dict added to the template's context).
    """

    methods: ClassVar = ["GET"]
    template_name = ""
    title = ""
    extra_context: dict[str, Any] | None = None

    def __init__(self, **options: Any) -> None:
        for name, value in options.items():
            setattr(self, name, value)

    @classmethod
    def as_view(cls, name: str, *class_args: Any, **class_kwargs: Any) -> Callable[..., Any]:
        """Return a view function named `name`.

        Raises:
            TypeError: at once, for an option that the class does not have, as Django does.
        """
        for option in class_kwargs:
            if option.startswith("_") or not hasattr(cls, option) or isroutine(getattr(cls, option)):
                msg = f"{cls.__name__}.as_view() got an unknown option {option!r}"
                raise TypeError(msg)
        cls.check_options(**class_kwargs)
        return super().as_view(name, *class_args, **class_kwargs)

    @classmethod
    def check_options(cls, **options: Any) -> None:
        """Raise TypeError for an option's value that could not be used later; nothing to check here."""

    def dispatch_request(self, **kwargs: str) -> ResponseReturnValue:
        """Render the page."""
        return self.render()

    def render(self, **context: Any) -> str:
        """Render the template with the context of `get_context_data` and this."""
        return render_template(self.template_name, **self.get_context_data(**context))

    def get_context_data(self, **context: Any) -> dict[str, Any]:
        """Return what the template sees (Django's method)."""
        return {"title": self.title, **context, **(self.extra_context or {})}


class FormView(TemplateView):
    """Shows a form, and calls `form_valid` with a valid one.

    Options beside those of `TemplateView`: `form_class`, and `success_url` (a path, or the name of an endpoint).
    """

    methods: ClassVar = ["GET", "POST"]
    form_class: type[FlaskForm]
    success_url = ""

    def dispatch_request(self, **kwargs: str) -> ResponseReturnValue:
        """Show the form, with what is wrong with it, or go on with a valid one."""
        form = self.get_form()
        return self.form_valid(form) if form.validate_on_submit() else self.render(form=form)

    def get_form(self) -> FlaskForm:
        """Return the form, filled from the request."""
        return self.form_class()

    def form_valid(self, form: FlaskForm) -> ResponseReturnValue:
        """Go to the next page; subclasses do their work first."""
        return self.go_to_success_url()

    def go_to_success_url(self) -> ResponseReturnValue:
        """Redirect to `success_url`."""
        return redirect(self.success_url if "/" in self.success_url else url_for(self.success_url))


class EmailedLinkView(FormView):
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
