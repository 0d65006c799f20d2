"""Sends an email to a mail server or the local mailbox. This package must not use accounts or rows."""
