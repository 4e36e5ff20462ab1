"""Accounts and users of the servers: who may append and read, who may change streams, and who may ask the nodes.

    EVENTS         has the streams; its users are operators, who may do everything with them
    APPLICATIONS   has no streams; it imports from EVENTS what appending and reading needs, store by store
    SYSTEM         has the nodes' own requests; APPLICATIONS and EVENTS import the one that says what a node is

Permissions of users would not protect a stream: a server sends what it is asked for to any reply subject, so that a
user who may only append and read can let it send an event to the subject that changes or deletes the stream. The reply
to an imported service stays in the account of its caller. Consumers deliver to any subject too, and are not imported.
Permissions of APPLICATIONS are for clear errors: a refused request is named, and one that is not imported only has no
answer.
The file is JSON, which servers read as their own format; it has hashes of passwords only.
Knows: subjects of the servers' API, the form of their configuration. Does not know: where nodes are, streams' contents.
"""

from __future__ import annotations

import secrets
from typing import Any, Literal, NamedTuple

import msgspec

from eventfold.engines.jetstream.names import StoreNames, check_store_name
from eventfold.engines.jetstream.nodes import JETSTREAM_SUBJECT
from eventfold.errors import InvalidInput, MissingExtra

EVENTS, APPLICATIONS, SYSTEM = "EVENTS", "APPLICATIONS", "SYSTEM"
Role = Literal["application", "operator", "system"]
ACCOUNT_OF: dict[Role, str] = {"application": APPLICATIONS, "operator": EVENTS, "system": SYSTEM}
ASKED = (JETSTREAM_SUBJECT,)
BUCKETS = ("locks", "snapshots", "keys")  # of keys and values, beside each store's stream
UNSERVED = "ef-unserved"
OBJECTS = ("index",)  # buckets of objects
HASH_ROUNDS = 5  # of bcrypt: the passwords have 192 random bits, and a server checks one at each connection
PASSWORD_BYTES = 24
MAX_STORES = 1_000


class Issued(NamedTuple):
    """A password that was made now. It is stored nowhere but as a hash."""

    user: str
    role: Role
    password: str


class Accounts:
    """The accounts of a cluster: which stores applications may use, and the users, issued, rotated and revoked."""

    def __init__(self, document: dict[str, Any] | None = None) -> None:
        self._document = _document() if document is None else document

    @classmethod
    def read(cls, text: bytes) -> Accounts:
        """The accounts of a file that `write` made. Raises InvalidInput for another file."""
        try:
            document = msgspec.json.decode(text, type=dict[str, Any])
            accounts = cls(document)
            if not accounts.names() or len(accounts.stores()) > MAX_STORES:
                raise TypeError
        except (msgspec.MsgspecError, KeyError, TypeError, AttributeError) as error:
            raise InvalidInput(
                "The file is not one that `eventfold cluster accounts` wrote.", "Name another folder for a new one."
            ) from error
        return accounts

    def write(self) -> bytes:
        """The file's text: JSON, indented."""
        return msgspec.json.format(msgspec.json.encode(self._document), indent=2) + b"\n"

    def stores(self) -> list[str]:
        """The stores that applications may use."""
        subjects = [each["service"]["subject"] for each in self._account(APPLICATIONS)["imports"]]
        return [each.removeprefix("ef.").removesuffix(".>") for each in subjects if each.startswith("ef.")]

    def add_store(self, name: str) -> None:
        """Let applications use a store, which need not exist yet. Raises InvalidUrl for a name that none can have."""
        check_store_name(name)
        if name in self.stores():
            return
        names = StoreNames(name)
        allowed: list[str] = self._account(APPLICATIONS)["default_permissions"]["publish"]["allow"]
        allowed += [names.heads, names.appends, f"{names.appends}.>"]
        for subject, has_many_answers in application_subjects(names):
            allowed.append(subject)
            export: dict[str, Any] = {"service": subject, "accounts": [APPLICATIONS]}
            self._account(EVENTS)["exports"].append(export | ({"response": "stream"} if has_many_answers else {}))
            self._account(APPLICATIONS)["imports"].append({"service": {"account": EVENTS, "subject": subject}})

    def issue(self, role: Role) -> Issued:
        """Add a user of a role, with a new password."""
        taken, number = set(self.names()), 1
        while (name := role if number == 1 else f"{role}-{number}") in taken:
            number += 1
        password = secrets.token_urlsafe(PASSWORD_BYTES)
        self._account(ACCOUNT_OF[role])["users"].append({"user": name, "password": _hash(password)})
        return Issued(name, role, password)

    def rotate(self, name: str) -> Issued:
        """Add a user that may do what `name` may. The old one works until it is revoked."""
        return self.issue(self._role_of(name))

    def revoke(self, name: str) -> None:
        """Remove a user. Raises InvalidInput for the last one of its account."""
        role = self._role_of(name)
        users = self._account(ACCOUNT_OF[role])["users"]
        if len(users) == 1:
            raise InvalidInput(f"{name} is the only {role} user.", f"First: eventfold cluster rotate {name}.")
        users[:] = [each for each in users if each["user"] != name]

    def names(self) -> list[str]:
        """The names of all users."""
        return [each["user"] for account in ACCOUNT_OF.values() for each in self._account(account)["users"]]

    def _account(self, name: str) -> dict[str, Any]:
        return self._document["accounts"][name]

    def _role_of(self, name: str) -> Role:
        for role, account in ACCOUNT_OF.items():
            if any(each["user"] == name for each in self._account(account)["users"]):
                return role
        raise InvalidInput(f"There is no user {name[:60]!r}.", f"There are: {', '.join(self.names())}.", user=name)


def development_accounts() -> bytes:
    """Accounts for development on one machine: every client may do everything, and the nodes can be asked."""
    document = _document()
    document["accounts"][EVENTS]["users"] = [{"user": "developer", "password": "developer"}]
    document["accounts"][SYSTEM]["users"] = [{"user": "system", "password": "system"}]
    document["accounts"][EVENTS]["exports"] = []
    del document["accounts"][APPLICATIONS]
    return msgspec.json.encode(document | {"no_auth_user": "developer"})


def application_subjects(store: StoreNames) -> list[tuple[str, bool]]:
    """The subjects that an application of a store may use, and whether a request has many answers.

    No request is among them that changes, deletes, purges, copies or restores a stream, deletes a message, or makes a
    consumer. One bucket may be purged: that of the published index, whose objects are replaced.
    """
    buckets = [store.bucket(name) for name in BUCKETS]
    objects = [store.bucket(name) for name in OBJECTS]
    streams = [store.stream, *(f"KV_{each}" for each in buckets), *(f"OBJ_{each}" for each in objects)]
    subjects = [(store.subjects, False)]
    subjects += [(f"$KV.{each}.>", False) for each in buckets] + [(f"$O.{each}.>", False) for each in objects]
    subjects += [(f"$JS.API.STREAM.PURGE.OBJ_{each}", False) for each in objects]
    for stream in streams:
        subjects += [
            (f"$JS.API.STREAM.INFO.{stream}", False),
            (f"$JS.API.STREAM.MSG.GET.{stream}", False),
            (f"$JS.API.DIRECT.GET.{stream}", True),
            (f"$JS.API.DIRECT.GET.{stream}.>", True),
        ]
    return subjects


def _document() -> dict[str, Any]:
    asked = [{"service": subject, "response": "stream"} for subject in ASKED]
    imported = [{"service": {"account": SYSTEM, "subject": subject}} for subject in ASKED]
    # A server answers every request to $JS.API itself, with "not enabled", in an account that has no import of this
    # name; its answer would race with that of the imported requests. No program serves the subject that this one names.
    nothing = {"service": {"account": EVENTS, "subject": f"{UNSERVED}.>"}, "to": "$JS.API.>"}
    return {
        "system_account": SYSTEM,
        "accounts": {
            SYSTEM: {"users": [], "exports": asked},
            EVENTS: {
                "jetstream": "enabled",
                "users": [],
                "exports": [{"service": f"{UNSERVED}.>", "accounts": [APPLICATIONS]}],
                "imports": imported,
            },
            APPLICATIONS: {
                "users": [],
                "default_permissions": {"publish": {"allow": ["_INBOX.>", *ASKED]}},
                "imports": [*imported, nothing],
            },
        },
    }


def _hash(password: str) -> str:
    try:
        import bcrypt
    except ModuleNotFoundError as error:
        raise MissingExtra(
            "Passwords are stored as bcrypt hashes, and the package bcrypt is not installed.",
            "Install the extra: pip install 'eventfold[jetstream]'",
            extra="jetstream",
        ) from error
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(HASH_ROUNDS)).decode()
