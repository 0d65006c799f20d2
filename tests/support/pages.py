"""What tests read from a page or an email: the CSRF token, the text, the links."""

import re
from email.message import EmailMessage
from typing import Any


def csrf_token(page: Any) -> str:
    """Return the token of the first form on a page."""
    found = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', page.text)
    assert found, f"no form on the page: {page.status}"
    return found[1]


def text_of(mail: EmailMessage) -> str:
    """Return the text part."""
    part = mail.get_body(("plain",))
    assert part is not None
    return str(part.get_content()).replace("\r\n", "\n")


def link_in(mail: EmailMessage) -> str:
    """Return the link that stands on a line of its own."""
    links = re.findall(r"^(http\S+/\S+)$", text_of(mail), re.MULTILINE)
    assert len(links) >= 1, "no link in the mail"
    return str(links[0])


def path_of(link: str) -> str:
    """Return a link without its origin."""
    return "/" + link.split("/", 3)[3]


def links_in(mail: EmailMessage) -> list[str]:
    """Return the links that stand on lines of their own in the text part, in order."""
    return re.findall(r"^(http\S+//[^/\s]+/\S+)$", text_of(mail), re.MULTILINE)
