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
