"""How a request body is written, correctly and incorrectly: the encoding of its fields and its framing.

It decides what each name of an encoding and of a framing stands for.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import urlencode

Pairs = Sequence[tuple[str, str]]


def as_bytes(text: str) -> bytes:
    """Return a text as UTF-8, with halves of characters as they are."""
    return text.encode("utf-8", "surrogatepass")


def truncated(body: bytes) -> bytes:
    """Return what a server reads of a body whose stated length is too short."""
    return body[: max(0, len(body) - 9)]


def _form(pairs: Pairs) -> tuple[str, bytes]:
    return "application/x-www-form-urlencoded", urlencode(pairs, errors="surrogatepass").encode()


def _multipart(pairs: Pairs, extra: str = "") -> tuple[str, bytes]:
    parts = [f'--x\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n{value}\r\n' for name, value in pairs]
    return "multipart/form-data; boundary=x", as_bytes("".join(parts) + "--x--\r\n")


ENCODINGS: Mapping[str, Callable[[Pairs], tuple[str, bytes]]] = {
    "form": _form,
    "multipart": _multipart,
    "files": lambda pairs: _multipart(pairs, '; filename="x.txt"'),
    "json": lambda pairs: ("application/json", json.dumps(dict(pairs)).encode()),
    "json with lists": lambda pairs: (
        "application/json",
        json.dumps({name: [value, 1] for name, value in pairs}).encode(),
    ),
    "xml": lambda pairs: ("text/xml", as_bytes(f"<?xml version='1.0'?><!DOCTYPE a><a>{dict(pairs)}</a>")),
    "garbage": lambda pairs: ("application/x-www-form-urlencoded", b"\xff&%zz=%&;=&" + as_bytes(str(pairs))),
    "large": lambda pairs: (_form(pairs)[0], _form(pairs)[1] + b"&x=" + b"y" * 70_000),
    "many": lambda pairs: (_form(pairs)[0], _form(pairs)[1] + b"&a=b" * 60),
    "nothing": lambda _pairs: ("", b""),
}


def _chunked(body: bytes, end: bytes = b"0\r\n\r\n") -> tuple[str, bytes]:
    return "Transfer-Encoding: chunked\r\n", b"%x\r\n%b\r\n" % (len(body), body) * bool(body) + end


FRAMINGS: Mapping[str, Callable[[bytes], tuple[str, bytes]]] = {
    "length": lambda body: (f"Content-Length: {len(body)}\r\n", body),
    "short": lambda body: (f"Content-Length: {len(truncated(body))}\r\n", body),
    "long": lambda body: (f"Content-Length: {len(body) + 100}\r\n", body),
    "none": lambda body: ("", body),
    "chunked": _chunked,
    "chunks without an end": lambda body: _chunked(body, b""),
    "chunks of no size": lambda body: _chunked(body, b"zz\r\n\r\n"),
    "chunks cut short": lambda body: ("Transfer-Encoding: chunked\r\n", b"fff\r\n" + body),
    "both": lambda body: (f"Content-Length: {len(body)}\r\n" + _chunked(body)[0], _chunked(body)[1]),
}
