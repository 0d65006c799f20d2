"""Class-based views like Django's `TemplateView` and `FormView`, and one for a page that an emailed link opens.

A view's options are class attributes, which `as_view` overrides by name. The three classes build on each other:
`TemplateView` renders, `FormView` adds a form, `EmailedLinkView` shows that form only if the link is valid.
"""

from collections.abc import Callable
from inspect import isroutine
from typing import Any, ClassVar

from flask import redirect, render_template, url_for
from flask.typing import ResponseReturnValue
from flask.views import View
from flask_wtf import FlaskForm

from pwreset.accounts.tokens import TokenError, TokenExpired, check_link
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
        return super().as_view(name, *class_args, **class_kwargs)

    def dispatch_request(self, **kwargs: str) -> ResponseReturnValue:
        """Render the page."""
        return self.render()

    def render(self, **context: Any) -> str:
        """Render the template with the context of `get_context_data` and this."""
        return render_template(self.template_name, **self.get_context_data(**context))

    def get_context_data(self, **context: Any) -> dict[str, Any]:
        """Return the template's context (Django's method)."""
        return {"title": self.title, **context, **(self.extra_context or {})}


class FormView(TemplateView):
    """Shows a form, and calls `form_valid` with a valid one.

    Options besides those of `TemplateView`: `form_class`, and `success_url` (a path, or the name of an endpoint).
    """

    methods: ClassVar = ["GET", "POST"]
    form_class: type[FlaskForm]
    success_url = ""

    def dispatch_request(self, **kwargs: str) -> ResponseReturnValue:
        """Show the form with its errors, or call `form_valid`."""
        form = self.get_form()
        return self.form_valid(form) if form.validate_on_submit() else self.render(form=form)

    def get_form(self) -> FlaskForm:
        """Return the form, filled from the request."""
        return self.form_class()

    def form_valid(self, form: FlaskForm) -> ResponseReturnValue:
        """Redirect to `success_url`; a subclass does its work, then calls this, as in Django."""
        return redirect(self.success_url if "/" in self.success_url else url_for(self.success_url))


class EmailedLinkView(FormView):
    """Shows a form if the link is valid, and a page without a form if it is not.

    That page has status 200, as in Django. It is the same for every reason, except for a sentence that says whether the
    link has expired or is no longer valid. Showing a page changes nothing, because email scanners follow links.

    Option besides those of `FormView`: `dead_title`, the title of the page without a form.
    """

    dead_title = "This link does not work"
    purposes: ClassVar[tuple[str, ...]] = ()

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.validlink = False
        self.expired = False
        self.reopen = False  # whether opening the link from the email again may help
        self.user: User
        self.purpose = ""

    def dispatch_request(self, *, uidb64: str, token: str) -> ResponseReturnValue:  # type: ignore[override]
        """Check the link, then show or submit the form. The URL rule must name both arguments."""
        self.check_link(uidb64, token)
        return self.show()

    def check_link(self, uidb64: str, token: str) -> None:
        """Set `validlink`, `user` and `purpose` if the link is valid, otherwise `expired`."""
        try:
            self.user, self.purpose = check_link(uidb64, token, self.purposes)
            self.validlink = True
        except TokenError as error:
            self.expired = isinstance(error, TokenExpired)

    def show(self) -> ResponseReturnValue:
        """Show or submit the form, or render the page without one."""
        return super().dispatch_request() if self.validlink else self.render()

    def get_context_data(self, **context: Any) -> dict[str, Any]:
        """Add the account, or the reason why there is no form."""
        if self.validlink:
            return super().get_context_data(validlink=True, user=self.user, **context)
        dead = {"form": None, "expired": self.expired, "reopen": self.reopen}
        # As in Django, a title in `extra_context` is for the page with the form.
        return super().get_context_data(validlink=False, **dead, **context) | {"title": self.dead_title}
