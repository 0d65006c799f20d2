"""Decides which passwords are accepted, and how they are stored and checked.

`validate_password` and then `make_password` run when a password is set, `check_password` when it is used; both
`prepare` it first. Names and meanings are those of django.contrib.auth.

This package must not import Flask, the database or the User model; a user is any object with an `email`.
"""
