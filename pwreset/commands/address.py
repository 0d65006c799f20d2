"""The email address as a parameter of a command."""

import click

from pwreset.addresses import AddressError, normalize


def normalized(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    """Return the address in its stored form, or end with bad usage and the reason; for click's `callback`."""
    try:
        return None if value is None else normalize(value)
    except AddressError as error:
        raise click.BadParameter(str(error)) from None
