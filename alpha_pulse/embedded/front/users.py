"""Who may come in: names, passwords and roles, kept by the front because the engine has none.

The users file is TOML, one table for each user:

    [grafana]
    role = "reader"                # reader, writer or admin
    password_sha256_hex = "9f86…"  # printf '%s' PASSWORD | sha256sum
"""

import hashlib
import hmac
import os
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from urllib.parse import quote

import msgspec

from alpha_pulse.embedded.errors import EmbeddedRuntimeError
from alpha_pulse.embedded.front.failures import AUTHENTICATION_FAILED, QueryFailure


class Role(StrEnum):
    """What a user may do."""

    READER = "reader"  # SELECT and the like, with limits; no files, no network, no settings of size
    WRITER = "writer"  # INSERT, and what a reader may
    ADMIN = "admin"  # everything: DDL, SYSTEM, files


@dataclass(frozen=True)
class Login:
    """A user with the password in plain text, as its owner knows it."""

    name: str
    password: str = field(repr=False)
    role: Role


@dataclass(frozen=True)
class User:
    """One user as the front knows it; an empty hash stands for no password."""

    name: str
    role: Role
    password_sha256_hex: str = ""

    @property
    def queries_at_once_max(self) -> int:
        """How many queries of this user may run at once."""
        return {Role.READER: 16, Role.WRITER: 32, Role.ADMIN: 64}[self.role]


class Users:
    """All users of one front. Without any, `default` is an admin without a password."""

    def __init__(self, users: Iterable[User]) -> None:
        self._by_name = {user.name: user for user in users}
        if not self._by_name:
            self._by_name = {"default": User("default", Role.ADMIN)}

    def authenticate(self, name: str, password: str) -> User:
        """Return the user with this name and password.

        Raises: QueryFailure; it does not tell a wrong name from a wrong password.
        """
        user = self._by_name.get(name)
        expected = user.password_sha256_hex if user else _hash("nobody")
        given = _hash(password) if expected or password else ""
        if user is None or not hmac.compare_digest(expected.encode(), given.encode()):
            raise QueryFailure(
                AUTHENTICATION_FAILED,
                f"{name}: Authentication failed: password is incorrect, or there is no user with "
                f"such name.",
            )
        return user


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    role: Role
    password_sha256_hex: str


def load_users(path: Path) -> list[User]:
    """Return the users of a users file.

    Raises: EmbeddedRuntimeError naming the file and what is wrong in it.
    """
    try:
        tables = msgspec.convert(tomllib.loads(path.read_text()), dict[str, _Entry])
    except (OSError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise EmbeddedRuntimeError(
            f"expected a table with role and password_sha256_hex for each user in {path}, found: "
            f"{error}"
        ) from error
    for name, entry in tables.items():
        if len(entry.password_sha256_hex) != 64 or set(entry.password_sha256_hex) - set(
            "0123456789abcdef"
        ):
            raise EmbeddedRuntimeError(
                f"expected 64 lower-case hex digits as password_sha256_hex of {name} in {path}, "
                f"found something else; make it with: printf '%s' PASSWORD | sha256sum"
            )
    return [User(name, entry.role, entry.password_sha256_hex) for name, entry in tables.items()]


def save_users(path: Path, logins: Iterable[Login]) -> None:
    """Write a users file that only its owner can read; it holds hashes, not passwords."""
    lines: list[str] = []
    for login in logins:
        name = msgspec.json.encode(login.name).decode()  # a JSON string is a TOML string
        lines += [f"[{name}]", f'role = "{login.role}"']
        lines += [f'password_sha256_hex = "{_hash(login.password)}"', ""]
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write("\n".join(lines))


def url_of(url: str, login: Login) -> str:
    """Return a base URL that carries a user and a password."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{quote(login.name, safe='')}:{quote(login.password, safe='')}@{rest}"


def without_login(url: str) -> str:
    """Return a URL without the user and the password that it may carry; for people and logs."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def _hash(password: str) -> str:
    return hashlib.sha256(password.encode()).hexdigest()
