"""Requests that no browser sends, half of them nearly right, for hypothesis to choose from.

It decides what can be chosen and how it is written as bytes. What differs between runs (addresses, passwords, links,
cookies) is chosen by name, `«bob.token»`, and inserted by the sender, so an example is the same in each run.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import parse_qsl, quote, urlencode

from hypothesis import strategies as st

from tests.support.odd_values import (
    ADDRESSES,
    FIELDS,
    HEADERS,
    HOSTS,
    METHODS,
    MUTATIONS,
    NEXT,
    ODD_ADDRESSES,
    ODD_PATHS,
    ODD_QUERIES,
    ODD_TEXTS,
    PEOPLE,
    TOKENS,
    UIDS,
)
from tests.support.request_bodies import ENCODINGS, FRAMINGS, as_bytes, truncated

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class OddRequest:
    """One request, with names in place of what differs from run to run.

    Args:
        who: whose cookies it has.
        target: path and query, written as they are.
        encoding: a name of `ENCODINGS`.
        framing: a name of `FRAMINGS`.
        crowded: whether it comes from an address that many others come from too, so that the limits tell.
    """

    who: str
    method: str
    target: str
    fields: Pairs
    encoding: str = "form"
    framing: str = "length"
    headers: Pairs = ()
    host: str = "«host»"
    crowded: bool = False

    def mentions(self, name: str) -> bool:
        """Whether what stands for a name is anywhere in it."""
        return f"«{name}»" in f"{self.target} {self.fields} {self.headers}"


def written(request: OddRequest, known: Mapping[str, str], address: str) -> bytes:
    """Return the bytes of a request.

    Args:
        request: to be written.
        known: what stands for each name.
        address: where it comes from, as the proxy says; a header of its own comes after it.
    """
    content_type, body = encoded(request, known)
    heads = [("Host", request.host), ("X-Forwarded-For", address), *request.headers, ("Connection", "close")]
    if cookie := known.get(f"{request.who}.cookie"):
        heads.append(("Cookie", f"pwreset_session={cookie}"))
    if content_type and not any(name == "Content-Type" for name, _ in request.headers):
        heads.append(("Content-Type", content_type))
    framed, body = FRAMINGS[request.framing](body)
    lines = [f"{request.method} {request.target} HTTP/1.1", *(f"{name}: {_one_line(text)}" for name, text in heads)]
    head = filled("\r\n".join(lines), known)
    return as_bytes(f"{head}\r\n{framed}\r\n") + body


def encoded(request: OddRequest, known: Mapping[str, str]) -> tuple[str, bytes]:
    """Return a request's content type and body, before it is framed."""
    pairs = [(filled(name, known), filled(value, known)) for name, value in request.fields]
    return ENCODINGS[request.encoding](pairs)


def fields_that_arrive(request: OddRequest, known: Mapping[str, str]) -> dict[str, str]:
    """Return what a form is filled with: of one that was cut short, what comes before the cut."""
    if (request.encoding, request.framing) != ("form", "short"):
        return {filled(name, known): filled(value, known) for name, value in request.fields}
    return dict(parse_qsl(truncated(encoded(request, known)[1]).decode(), keep_blank_values=True))


def filled(text: str, known: Mapping[str, str]) -> str:
    """Return a text with what stands for each name in it; «ALICE» is Alice's address in capitals."""
    return re.sub("«([A-Za-z.]+)»", lambda name: _meaning(name[1], known), text)


def _meaning(name: str, known: Mapping[str, str]) -> str:
    return known[name.lower()].upper() if name.isupper() else known[name]


def _one_line(text: str) -> str:
    return text.replace("\r", " ").replace("\n", " ")


# --- what is drawn

ODD_TEXT = st.sampled_from(ODD_TEXTS) | st.text(max_size=20)
ANY_ADDRESS = st.sampled_from(ADDRESSES) | st.sampled_from(ODD_ADDRESSES)
ADDRESS = st.sampled_from(ADDRESSES) | st.from_regex(r"[a-z]{1,3}[0-9]@fuzz\.example", fullmatch=True)
ANY_PASSWORD = st.sampled_from(("«alice.password»", "«bob.password»", "«new.password»", "password", "short", "«long»"))
CSRF = st.sampled_from(tuple(f"«{who}.csrf»" for who in PEOPLE if who))
HEADER = st.sampled_from(tuple((name, value) for name, values in HEADERS.items() for value in values)) | st.tuples(
    st.sampled_from(sorted(HEADERS)), ODD_TEXT
)
LOGIN = {"email": "«alice»", "password": "«alice.password»"}
NEW = {"new_password1": "«new.password»", "new_password2": "«new.password»"}
# Each form with what makes it go through: whose browser, where, what.
Form = tuple[str, str, Mapping[str, str | st.SearchStrategy[str]]]
MAILING: tuple[Form, ...] = (
    ("visitor", "/register/", {"email": ADDRESS}),
    ("visitor", "/password-reset/", {"email": ADDRESS}),
)
FORMS: tuple[Form, ...] = (
    ("visitor", "/login/", {**LOGIN, "remember": "y"}),
    *(("visitor", f"/login/?{urlencode({'next': target})}", LOGIN) for target in NEXT),
    ("alice", "/login/?next=/password-change/", {"email": ADDRESS, "password": ANY_PASSWORD}),
    ("alice", "/password-change/", {"old_password": "«alice.password»", **NEW}),
    ("alice", "/account/sign-out-everywhere/", {}),
    ("alice", "/logout/", {}),
    ("bob", "/password-reset-confirm/«bob.uid»/set-password", NEW),
    ("visitor", "/password-reset-confirm/«carol.uid»/«carol.token»", NEW),
    ("visitor", "/password-reset-cancel/«dan.uid»/«dan.cancel»", {}),
    ("visitor", "/account-secure/«dan.uid»/«dan.notice»", {}),
)
# And what somebody tries who has only half of what it takes.
TRIES: tuple[Form, ...] = (
    ("visitor", "/login/", {"email": "«dan»", "password": "«alice.password»"}),
    ("visitor", "/login/", {"email": "«dora»", "password": "«dora.password»"}),
    ("alice", "/password-change/", {"old_password": "«bob.password»", **NEW}),
    ("visitor", "/password-reset-confirm/«bob.uid»/set-password", NEW),
    ("bob", "/password-reset-confirm/«carol.uid»/set-password", NEW),
    ("alice", "/password-reset-confirm/«dan.uid»/«dan.notice»", NEW),
    ("visitor", "/password-reset-cancel/«dan.uid»/«dora.token»", {}),
    ("visitor", "/account-secure/«dan.uid»/«dan.cancel»", {}),
)
# What broke something once.
FOUND = (
    OddRequest("visitor", "POST", "/login/", (("email", "«alice»"),), framing="chunks of no size"),
    OddRequest("", "GET", "/login", (), host="127.0.0.1"),
)


def odd_requests(rules: Sequence[str]) -> st.SearchStrategy[OddRequest]:
    """Return what draws requests.

    Args:
        rules: of the application's map, `/password-reset-confirm/<uidb64>/<token>`.
    """
    return _nearly_right() | _wild(rules)


def whole_requests() -> list[OddRequest]:
    """Return each form as those fill it in who may, as those do who may not, with each odd address, and `FOUND`."""
    fixed = {"email": "new@fuzz.example", "password": "«alice.password»"}
    usual = [
        (who, target, {name: text if isinstance(text, str) else fixed[name] for name, text in right.items()})
        for who, target, right in (*FORMS, *MAILING, *TRIES)
    ]
    odd = [(who, target, {"email": address}) for who, target, _ in MAILING for address in ODD_ADDRESSES]
    forms = [
        OddRequest(who, "POST", target, (*fields.items(), ("csrf_token", f"«{who}.csrf»")))
        for who, target, fields in usual + odd
    ]
    return [*forms, *FOUND]


@st.composite
def _nearly_right(draw: st.DrawFn) -> OddRequest:
    who, target, right = draw(st.sampled_from((*FORMS, *TRIES, *MAILING * 20)))
    fields = [(name, draw(_field(name, value))) for name, value in right.items() if _mostly(draw)]
    csrf = f"«{who}.csrf»"
    who = who if _mostly(draw) else draw(st.sampled_from(PEOPLE))
    fields.append(("csrf_token", csrf if _mostly(draw) else draw(CSRF | ODD_TEXT)))
    method = "POST" if _mostly(draw) else draw(st.sampled_from(("GET", "POST", *METHODS)))
    return draw(_sent(OddRequest(who, method, target, tuple(fields))))


def _field(name: str, right: str | st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    usual = st.just(right) if isinstance(right, str) else right
    odd = (ANY_ADDRESS if name == "email" else ANY_PASSWORD) | ODD_TEXT
    return st.integers(0, 7).flatmap(lambda n: odd if n == 0 else usual)


def _mostly(draw: st.DrawFn) -> bool:
    return draw(st.integers(0, 15)) > 0


@st.composite
def _wild(draw: st.DrawFn, rules: Sequence[str]) -> OddRequest:
    rule = draw(st.sampled_from((*rules, *ODD_PATHS)))
    target = re.sub(r"<\w*:?(\w+)>", lambda part: draw(_part(part[1])), rule)
    if draw(st.booleans()):
        target = draw(st.sampled_from(MUTATIONS))(target)
    if draw(st.booleans()):
        target += "?" + draw(_query())
    method = draw(st.sampled_from(("GET", "POST") * 8 + METHODS))
    names = st.sampled_from(FIELDS) | st.sampled_from(("email[]", "email.x", "__class__", "")) | ODD_TEXT
    values = ANY_ADDRESS | ANY_PASSWORD | CSRF | ODD_TEXT
    fields = draw(st.lists(st.tuples(names, values), max_size=4))
    fields += [("csrf_token", draw(CSRF))] * draw(st.integers(0, 1))
    return draw(_sent(OddRequest(draw(st.sampled_from(PEOPLE)), method, target, tuple(fields))))


def _part(name: str) -> st.SearchStrategy[str]:
    known = {"uidb64": UIDS, "token": TOKENS, "filename": ("pwreset.css", "../config.py", "%2e%2e/wsgi.py", ".")}
    return st.sampled_from(known[name]) if name in known else ODD_TEXT.map(_quoted)


def _query() -> st.SearchStrategy[str]:
    pairs = st.tuples(
        st.sampled_from(("next", "email", "token", "csrf_token", "uidb64", "")), st.sampled_from(NEXT) | ODD_TEXT
    )
    return st.sampled_from(ODD_QUERIES) | st.lists(pairs, min_size=1, max_size=3).map(
        lambda found: urlencode(found, errors="surrogatepass")
    )


def _quoted(text: str) -> str:
    return quote(text, safe="", errors="surrogatepass")


@st.composite
def _sent(draw: st.DrawFn, request: OddRequest) -> OddRequest:
    plain = draw(st.integers(0, 4)) > 0
    return replace(
        request,
        encoding="form" if plain else draw(st.sampled_from(tuple(ENCODINGS))),
        framing="length" if plain else draw(st.sampled_from(("length", *FRAMINGS))),
        headers=tuple(draw(st.lists(HEADER, min_size=1, max_size=3))) if draw(st.integers(0, 4)) == 0 else (),
        host="«host»" if draw(st.integers(0, 19)) else draw(st.sampled_from(HOSTS)),
        crowded=draw(st.integers(0, 9)) == 0,
    )
