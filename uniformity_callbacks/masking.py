"""Texts that may name a store, without the credentials in its URI."""

from __future__ import annotations

import re
from urllib.parse import unquote

HIDDEN = "***"

_USER = re.compile(r"(?<=://)[^\s/@]*(?:@[^\s/@]*)*@")
"""``user:password@`` in front of a host."""

_QUERY = re.compile(r"(?i)((?:password|passwd|pwd|token|secret|key|sig|signature)=)[^&\s'\"]+")
"""Likewise among a URI's arguments."""

_FILES = ("sqlite", "file")
"""Kinds of URI that have a path and no user."""

_SHORT = 4
"""A password of fewer letters is hidden only where it stands in the URI: it is part of too many words."""


def masked(text: str, uri: str = "") -> str:
    """Return a text with ``***`` for what must not be read by others.

    Args:
        text: such as an error of a database's driver.
        uri: the store's, whose password is found also where it stands alone.

    Example:
        >>> masked("no answer from http://me:secret@host/path")
        'no answer from http://***@host/path'
    """
    for secret in _secrets(uri):
        text = text.replace(secret, HIDDEN)
    return _QUERY.sub(rf"\1{HIDDEN}", _USER.sub(f"{HIDDEN}@", text))


def _secrets(uri: str) -> list[str]:
    """Return the user's part of a URI and the password in it, as they are and decoded, the longest first."""
    scheme, _, rest = uri.partition("://")
    if scheme.partition("+")[0] in _FILES:
        return []
    user = rest.rpartition("@")[0]  # the last: databases' URIs are also read with a bare @ or / in the password
    password = user.partition(":")[2]
    known = {user, *(word for word in (password, unquote(password)) if len(word) >= _SHORT)}
    return sorted(known - {""}, key=len, reverse=True)
