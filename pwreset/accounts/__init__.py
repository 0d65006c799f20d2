"""What can happen to an account: its password, links, sessions, login throttle and security events."""

from pwreset.accounts.service import (
    authenticate,
    create,
    find,
    find_by_id,
    purge_unfinished,
    record_login,
    revoke,
    revoke_sessions,
    set_active,
    set_password,
)

__all__ = [
    "authenticate",
    "create",
    "find",
    "find_by_id",
    "purge_unfinished",
    "record_login",
    "revoke",
    "revoke_sessions",
    "set_active",
    "set_password",
]
