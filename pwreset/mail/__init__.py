"""How an email reaches a mail server or the local mailbox. It knows no accounts and no rows."""
