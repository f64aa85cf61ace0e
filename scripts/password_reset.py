#!/usr/bin/env python3
# /// script
# requires-python = ">=3.9"
# dependencies = []
#
# [tool.automation]
# category = "Password Reset"
# description = "Password reset and user notification"
# timeout_seconds = 180
# memory_mb = 128
# isolation = "in-process"
# risk = "low"
# idempotent = false
#
# [tool.automation.parameters.reset_type]
# type = "string"
# default = "self_service"
# enum = ["self_service", "temporary"]
# description = "self_service mails a one-time link, temporary sets and mails a random password"
#
# [tool.automation.parameters.notify_user]
# type = "boolean"
# default = true
# description = "Tell the user; without it only a provider that delivers by itself can be used"
#
# [tool.automation.parameters.force_change]
# type = "boolean"
# default = false
# description = "Also require a new password at the next log-in"
#
# [tool.automation.parameters.user]
# type = "string"
# pattern = "^[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}$"
# maxLength = 64
# description = "Account name; by default the user_id of the ticket"
#
# [tool.automation.parameters.backend]
# type = "string"
# enum = ["local", "ldap", "webhook"]
# description = "Where the account lives; by default the setting password_backend, else local"
#
# [tool.automation.parameters.dry_run]
# type = "boolean"
# default = false
# description = "Check the account and the configuration, and change nothing"
# ///
"""Resets a password and tells the user, without ever showing a password or a token.

Run it by hand:

    python3 password_reset.py '{"user": "jdoe", "dry_run": true}'

Two rules shape everything below. A message goes only to the address that the directory has, never
to one from the request or the ticket. And nothing is changed before the mail server has agreed to
take a message for that address, so that nobody is locked out by a password that cannot arrive.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import http.client
import ipaddress
import json
import os
import re
import secrets
import shutil
import smtplib
import socket
import ssl
import stat
import subprocess
import sys
import time
import traceback
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate, make_msgid
from typing import Any, NoReturn

# --- Plumbing: the same lines in every bundled script, so that each stays a single file ----------


class Failure(Exception):
    """What the caller should read: a stable code, one sentence, and the facts known so far."""

    def __init__(self, code: str, message: str, *, exit_code: int = 1, **facts: Any) -> None:
        super().__init__(message)
        self.code, self.message, self.exit_code, self.facts = code, message, exit_code, facts


class ByHand:
    """Stands in for the context of a run when the script is started by hand."""

    ticket = None
    dry_run = False
    cancelled = False

    def remaining(self) -> float | None:
        return None

    def progress(self, fraction: float, text: str) -> None:
        self.log(f"{fraction:4.0%} {text}")

    def log(self, text: str) -> None:
        print(text, file=sys.stderr)

    def secret(self, name: str) -> str:
        try:
            return os.environ[f"AUTOMATION_SECRET_{name.upper()}"]
        except KeyError:
            raise LookupError(f"secret {name} is not configured") from None


try:
    from automation import ctx
except ImportError:
    ctx = ByHand()


def read_parameters(argv: list[str], schemas: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Returns the checked parameters of the command line, with the defaults filled in."""
    try:
        given = json.loads(argv[1] if len(argv) > 1 else "{}", parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise _invalid("the parameters are not valid JSON") from None
    if not isinstance(given, dict):
        raise _invalid("the parameters must be one JSON object")
    unknown = sorted(set(given) - set(schemas))
    if unknown:
        raise _invalid(f"unknown parameter {unknown[0][:64]!a}")
    for name, value in given.items():
        _check(name, value, schemas[name])
    return {name: given.get(name, schema.get("default")) for name, schema in schemas.items()}


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def _invalid(message: str) -> Failure:
    return Failure("invalid_parameters", message, exit_code=2)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 2**53


_IS_TYPE: dict[str, Callable[[Any], bool]] = {
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: _is_number(value) and value == int(value),
    "number": _is_number,
    "string": lambda value: isinstance(value, str),
}


def _check(name: str, value: Any, schema: dict[str, Any]) -> None:
    # No message repeats the value: it came from outside and may be long, hostile or confidential.
    if not _IS_TYPE[schema["type"]](value):
        raise _invalid(f"parameter {name} must be of type {schema['type']}")
    if "enum" in schema and value not in schema["enum"]:
        raise _invalid(f"parameter {name} must be one of {', '.join(schema['enum'])}")
    if "minimum" in schema and value < schema["minimum"]:
        raise _invalid(f"parameter {name} must be at least {schema['minimum']}")
    if "maximum" in schema and value > schema["maximum"]:
        raise _invalid(f"parameter {name} must be at most {schema['maximum']}")
    if "maxLength" in schema and len(value) > schema["maxLength"]:
        raise _invalid(f"parameter {name} must have at most {schema['maxLength']} characters")
    # fullmatch, because `$` alone also accepts a trailing line break.
    if "pattern" in schema and not re.fullmatch(schema["pattern"], value):
        raise _invalid(f"parameter {name} must match {schema['pattern']}")


def finish(result: dict[str, Any], exit_code: int) -> int:
    """Prints the one JSON object that is the result of this script."""
    print(json.dumps(result))
    return exit_code


def finish_failed(failure: Failure) -> int:
    error = {"code": failure.code, "message": failure.message}
    return finish({"success": False, "error": error, **failure.facts}, failure.exit_code)


# --- What this script does ------------------------------------------------------------------------

# The same keywords as in the block above, which only a TOML reader understands; a test compares them.
PARAMETERS: dict[str, dict[str, Any]] = {
    "reset_type": {"type": "string", "default": "self_service", "enum": ["self_service", "temporary"]},
    "notify_user": {"type": "boolean", "default": True},
    "force_change": {"type": "boolean", "default": False},
    "user": {"type": "string", "pattern": "^[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}$", "maxLength": 64},
    "backend": {"type": "string", "enum": ["local", "ldap", "webhook"]},
    "dry_run": {"type": "boolean", "default": False},
}

SECONDS_MAX = 20.0  # for one conversation with one server or one program
ANSWER_BYTES_MAX = 64 * 1024
PASSWORD_LENGTH = 20
# No l, I, 1, O, 0: people type this from a screen. No colon: chpasswd separates by it.
PASSWORD_SETS = ("abcdefghijkmnopqrstuvwxyz", "ABCDEFGHJKLMNPQRSTUVWXYZ", "23456789", "-_.+=")
ADDRESS = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+'&/=-]{0,63}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,188}[A-Za-z0-9])?")


# Settings


def setting(name: str, default: str | None = None) -> str:
    """Reads what may be seen: a named secret, or else an environment variable of the host."""
    with contextlib.suppress(LookupError):
        return str(ctx.secret(name))
    value = os.environ.get(f"AUTOMATION_SETTING_{name.upper()}") or default
    if value is None:
        raise Failure("not_configured", f"setting {name} is not configured")
    return value


def confidential(name: str) -> str:
    """Reads what nobody may see: from the secret store and from nowhere else."""
    try:
        return str(ctx.secret(name))
    except LookupError:
        raise Failure("not_configured", f"secret {name} is not configured") from None


def number_setting(name: str, default: int, low: int, high: int) -> int:
    text = setting(name, str(default))
    if not re.fullmatch("[0-9]{1,9}", text) or not low <= int(text) <= high:
        raise Failure("not_configured", f"setting {name} must be a number from {low} to {high}")
    return int(text)


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def checked_url(name: str) -> str:
    """Returns a URL that cannot carry a secret over a network in the clear."""
    url = setting(name)
    parts = urllib.parse.urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "https" and host or parts.scheme == "http" and is_loopback(host):
        return url
    raise Failure("not_configured", f"setting {name} must be an https URL (http only to this machine)")


def tls_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority = setting("tls_ca_file", "")
    if authority:
        context.load_verify_locations(authority)
    return context


def seconds_left() -> float:
    left = ctx.remaining()
    return SECONDS_MAX if left is None else max(0.1, min(SECONDS_MAX, left))


def stop_if_cancelled() -> None:
    if ctx.cancelled:
        raise Failure("cancelled", "the run was cancelled before anything was changed")


# Programs


def run_program(
    argv: list[str],
    *,
    typed: str = "",
    descriptors: tuple[int, ...] = (),
    environment: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Runs a program by argument list; secrets go in by `typed` or by descriptor, never by `argv`."""
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("AUTOMATION_SECRET_")}
    try:
        return subprocess.run(
            argv,
            input=typed,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds_left(),
            pass_fds=descriptors,
            env={**inherited, "LC_ALL": "C", **(environment or {})},
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Failure("command_timeout", f"{os.path.basename(argv[0])} did not end in time") from None


def find_program(name: str) -> str:
    program = shutil.which(name)
    if program is None:
        raise Failure("tool_missing", f"the program {name} is not on PATH")
    return program


def demand_success(answer: subprocess.CompletedProcess[str]) -> None:
    # The exit code only: what a program prints may repeat what it was given.
    if answer.returncode != 0:
        program = os.path.basename(answer.args[0])
        raise Failure("backend_refused", f"{program} ended with exit code {answer.returncode}")


@contextlib.contextmanager
def readable_once(*values: str) -> Iterator[tuple[int, ...]]:
    """Offers each value as a pipe that a child can read as /dev/fd/N: not in argv, not on a disk."""
    readers: list[int] = []
    try:
        for value in values:
            reader, writer = os.pipe()
            readers.append(reader)
            os.write(writer, value.encode())  # far below the capacity of a pipe, so it cannot block
            os.close(writer)
        yield tuple(readers)
    finally:
        for reader in readers:
            os.close(reader)


# Tokens


def digest_of(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


class TokenFolder:
    """One file a user in a private folder; a new token replaces the one before it.

    The page behind the link looks up `USER.json`, compares the SHA-256 of the token that it was
    given with `token_sha256`, checks `expires_at`, and removes the file before it sets the password:
    whoever fails to remove it has lost, so a token works once.
    """

    def __init__(self) -> None:
        self.path = setting("reset_token_dir")

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        try:
            folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            raise Failure("not_configured", "reset_token_dir is not a folder that can be opened") from None
        try:
            info = os.fstat(folder)
            if info.st_uid != os.geteuid() or stat.S_IMODE(info.st_mode) & 0o077:
                raise Failure("insecure_folder", "reset_token_dir must be ours alone (mode 0700)")
            yield folder
        finally:
            os.close(folder)

    def check(self) -> None:
        with self._opened():
            pass

    def store(self, user: str, digest: str, expires_at: str) -> None:
        record = {"user": user, "token_sha256": digest, "expires_at": expires_at}
        temporary = f".{uuid.uuid4()}.new"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with self._opened() as folder:
            with open(os.open(temporary, flags, 0o600, dir_fd=folder), "w", encoding="utf-8") as file:
                json.dump(record, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, f"{user}.json", src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)

    def drop(self, user: str) -> None:
        with self._opened() as folder, contextlib.suppress(FileNotFoundError):
            os.unlink(f"{user}.json", dir_fd=folder)


# Back ends


@dataclass(frozen=True)
class Person:
    """An account as the directory knows it; `handle` is the name that the back end uses for it."""

    user: str
    address: str | None
    handle: str


class Backend:
    """Where an account lives. Only `find` and `prepare` run before delivery is certain."""

    name: str
    delivers = False  # true when the provider itself tells the user

    def find(self, user: str) -> Person:
        raise NotImplementedError

    def prepare(self, reset_type: str, force_change: bool) -> None:
        """Raises what can be known to fail, while nothing is changed yet."""

    def set_password(self, person: Person, password: str) -> None:
        raise NotImplementedError

    def force_change(self, person: Person) -> None:
        raise NotImplementedError

    def store_token(self, person: Person, digest: str, expires_at: str) -> None:
        TokenFolder().store(person.user, digest, expires_at)

    def drop_token(self, person: Person, digest: str) -> None:
        TokenFolder().drop(person.user)


def user_not_found(user: str) -> Failure:
    return Failure("user_not_found", f"the directory has no account {user}")


class Local(Backend):
    name = "local"

    def find(self, user: str) -> Person:
        import pwd  # Unix only

        try:
            account = pwd.getpwnam(user)
        except KeyError:
            raise user_not_found(user) from None
        low = number_setting("local_uid_min", 1000, 1, 2**31)
        high = number_setting("local_uid_max", 59999, 1, 2**31 - 1)
        if not low <= account.pw_uid <= high:
            raise Failure(
                "protected_account", f"{user} is not the account of a person (uid {account.pw_uid})"
            )
        return Person(user, self._address(user), user)

    def _address(self, user: str) -> str | None:
        path = setting("mail_directory_file", "")
        if path:
            return read_mail_directory(path).get(user)
        domain = setting("mail_domain", "")
        return f"{user}@{domain}" if domain and "@" not in user else None

    def prepare(self, reset_type: str, force_change: bool) -> None:
        if reset_type == "temporary":
            find_program("chpasswd")
        else:
            TokenFolder().check()
        if force_change:
            find_program("chage")

    def set_password(self, person: Person, password: str) -> None:
        program = find_program("chpasswd")
        demand_success(run_program([program], typed=f"{person.handle}:{password}\n"))

    def force_change(self, person: Person) -> None:
        demand_success(run_program([find_program("chage"), "-d", "0", "--", person.handle]))


def read_mail_directory(path: str) -> dict[str, str]:
    """Reads lines of `user: address` from a file that no other account can write."""
    try:
        with open(path, encoding="utf-8") as file:
            info = os.fstat(file.fileno())
            if info.st_uid not in (0, os.geteuid()) or stat.S_IMODE(info.st_mode) & 0o022:
                raise Failure("insecure_file", "mail_directory_file must be writable by its owner only")
            lines = [line.split("#")[0].partition(":") for line in file]
    except (OSError, UnicodeDecodeError):
        raise Failure("not_configured", "mail_directory_file cannot be read") from None
    return {user.strip(): address.strip() for user, colon, address in lines if colon}


class Ldap(Backend):
    """Uses OpenLDAP's own programs; the password is changed by the operation of RFC 3062."""

    name = "ldap"

    FORCE_ATTRIBUTE = "pwdReset"  # of the password policy overlay

    def __init__(self) -> None:
        self.url = setting("ldap_url")
        self.base = setting("ldap_base_dn")
        self.bind_dn = setting("ldap_bind_dn")
        self.bind_password = confidential("ldap_bind_password")
        self.user_attribute = self._attribute("ldap_user_attribute", "uid")
        self.mail_attribute = self._attribute("ldap_mail_attribute", "mail")
        parts = urllib.parse.urlsplit(self.url)
        if parts.scheme not in ("ldap", "ldaps", "ldapi"):
            raise Failure("not_configured", "ldap_url must begin with ldaps://, ldap:// or ldapi://")
        # -ZZ demands StartTLS: a password never crosses a network in the clear.
        self.tls = ["-ZZ"] if parts.scheme == "ldap" and not is_loopback(parts.hostname or "") else []

    @staticmethod
    def _attribute(name: str, default: str) -> str:
        value = setting(name, default)
        if not re.fullmatch("[A-Za-z][A-Za-z0-9-]{0,63}", value):
            raise Failure("not_configured", f"setting {name} is not the name of an attribute")
        return value

    def find(self, user: str) -> Person:
        # The pattern of account names has none of the characters that mean something in a filter.
        entries = self._search(self.base, "sub", f"({self.user_attribute}={user})", self.mail_attribute)
        if not entries:
            raise user_not_found(user)
        if len(entries) > 1:
            raise Failure("ambiguous_user", f"the directory has more than one account {user}")
        addresses = entries[0].get(self.mail_attribute.lower(), [])
        return Person(user, addresses[0] if addresses else None, entries[0]["dn"][0])

    def prepare(self, reset_type: str, force_change: bool) -> None:
        if reset_type == "temporary":
            find_program("ldappasswd")
        else:
            TokenFolder().check()
        if force_change:
            find_program("ldapmodify")
            self._demand_attribute(self.FORCE_ATTRIBUTE)

    def _demand_attribute(self, attribute: str) -> None:
        root = self._search("", "base", "(objectClass=*)", "subschemaSubentry")
        places = [place for entry in root for place in entry.get("subschemasubentry", [])]
        known = [
            definition
            for place in places
            for entry in self._search(place, "base", "(objectClass=subschema)", "attributeTypes")
            for definition in entry.get("attributetypes", [])
        ]
        if not any(f"'{attribute}'" in definition for definition in known):
            raise Failure("force_change_unsupported", f"the directory has no attribute {attribute}")

    def set_password(self, person: Person, password: str) -> None:
        with readable_once(self.bind_password, password) as (bind, new):
            command = self._command("ldappasswd", bind) + ["-T", f"/dev/fd/{new}", "--", person.handle]
            demand_success(self._run(command, bind, new))

    def force_change(self, person: Person) -> None:
        name = base64.b64encode(person.handle.encode()).decode()
        attribute = self.FORCE_ATTRIBUTE
        change = f"dn:: {name}\nchangetype: modify\nreplace: {attribute}\n{attribute}: TRUE\n"
        with readable_once(self.bind_password) as (bind,):
            demand_success(self._run(self._command("ldapmodify", bind), bind, typed=change))

    def _search(self, base: str, scope: str, filter_text: str, attribute: str) -> list[dict[str, list[str]]]:
        with readable_once(self.bind_password) as (bind,):
            command = self._command("ldapsearch", bind)
            command += ["-LLL", "-o", "ldif-wrap=no", "-b", base, "-s", scope, "--", filter_text, attribute]
            answer = self._run(command, bind)
        demand_success(answer)
        return parse_ldif(answer.stdout)

    def _run(self, argv: list[str], *descriptors: int, typed: str = "") -> subprocess.CompletedProcess[str]:
        authority = setting("tls_ca_file", "")
        environment = {"LDAPTLS_CACERT": authority} if authority else {}
        return run_program(argv, typed=typed, descriptors=descriptors, environment=environment)

    def _command(self, program: str, bind: int) -> list[str]:
        account = ["-x", "-H", self.url, "-D", self.bind_dn, "-y", f"/dev/fd/{bind}"]
        return [find_program(program), *self.tls, "-o", "nettimeout=10", *account]


def parse_ldif(text: str) -> list[dict[str, list[str]]]:
    """Reads entries of unwrapped LDIF; attribute names in lower case."""
    entries = []
    for block in re.split(r"\n\s*\n", text):
        entry: dict[str, list[str]] = {}
        for line in block.splitlines():
            name, colon, value = line.partition(":")
            if not colon or name.startswith("#"):
                continue
            if value.startswith(":"):
                value = base64.b64decode(value[1:]).decode("utf-8", "replace")
            entry.setdefault(name.lower(), []).append(value.strip())
        if "dn" in entry:
            entries.append(entry)
    return entries


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the bearer token and the password to another address."""

    def redirect_request(self, *_: Any) -> None:
        return None


class Webhook(Backend):
    """An identity provider behind one HTTPS address; scripts/README.md lists the actions."""

    name = "webhook"

    def __init__(self) -> None:
        self.url = checked_url("webhook_url")
        self.token = confidential("webhook_token")
        self.key = confidential("webhook_hmac_key")
        handlers = [
            _NoRedirect(),
            urllib.request.ProxyHandler({}),  # not through whatever the environment names
            urllib.request.HTTPSHandler(context=tls_context()),
        ]
        self.opener = urllib.request.build_opener(*handlers)

    def find(self, user: str) -> Person:
        answer = self.call("find_user", user)
        if answer.get("found") is not True:
            raise user_not_found(user)
        self.delivers = answer.get("delivery") == "provider"
        address = answer.get("address")
        return Person(user, address if isinstance(address, str) else None, user)

    def set_password(self, person: Person, password: str) -> None:
        self.call("set_password", person.handle, password=password)

    def force_change(self, person: Person) -> None:
        self.call("force_change", person.handle)

    def store_token(self, person: Person, digest: str, expires_at: str) -> None:
        self.call("store_token", person.handle, token_sha256=digest, expires_at=expires_at)

    def drop_token(self, person: Person, digest: str) -> None:
        self.call("drop_token", person.handle, token_sha256=digest)

    def call(self, action: str, user: str, **facts: Any) -> dict[str, Any]:
        body = json.dumps({"action": action, "user": user, **facts}).encode()
        request = urllib.request.Request(self.url, data=body, headers=self._headers(body), method="POST")
        try:
            with self.opener.open(request, timeout=seconds_left()) as response:
                answer = json.loads(response.read(ANSWER_BYTES_MAX))
        except urllib.error.HTTPError as error:
            # The status only: a provider may repeat in its answer what it was sent.
            error.close()
            raise Failure("backend_refused", f"the provider answered {error.code} to {action}") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = type(error).__name__
            raise Failure(
                "backend_unreachable", f"the provider gave no answer to {action} ({reason})"
            ) from None
        if not isinstance(answer, dict):
            raise Failure("backend_refused", f"the provider's answer to {action} is not a JSON object")
        return answer

    def _headers(self, body: bytes) -> dict[str, str]:
        sent_at = str(int(time.time()))
        # The time is signed with the body, so that an old request cannot be played again.
        signature = hmac.new(self.key.encode(), sent_at.encode() + b"." + body, hashlib.sha256).hexdigest()
        return {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Authorization": f"Bearer {self.token}",
            "Idempotency-Key": str(uuid.uuid4()),
            "X-Automation-Timestamp": sent_at,
            "X-Automation-Signature": f"sha256={signature}",
        }


BACKENDS: dict[str, Callable[[], Backend]] = {"local": Local, "ldap": Ldap, "webhook": Webhook}


def choose_backend(name: str | None) -> Backend:
    chosen = name or setting("password_backend", "local")
    if chosen not in BACKENDS:
        raise Failure("not_configured", f"setting password_backend must be one of {', '.join(BACKENDS)}")
    if chosen != "webhook" and os.name != "posix":
        raise Failure("unsupported_platform", f"the back end {chosen} needs Linux or another Unix")
    return BACKENDS[chosen]()


# Mail


class Delivery:
    """A message that the mail server has agreed to take before its text exists."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.sender = setting("smtp_from")
        if not ADDRESS.fullmatch(self.sender):
            raise Failure("not_configured", "setting smtp_from is not a mail address")
        self.connection: smtplib.SMTP | None = None

    def __enter__(self) -> Delivery:
        try:
            self.connection = connect_to_mail_server()
            self.connection.ehlo_or_helo_if_needed()
            for code, _ in (self.connection.mail(self.sender), self.connection.rcpt(self.address)):
                if code not in (250, 251):
                    raise Failure("mail_refused", f"the mail server refused the message with code {code}")
        except BaseException as error:
            self.__exit__()
            _as_mail_failure(error)
        return self

    def __exit__(self, *_: Any) -> None:
        if self.connection is not None:
            with contextlib.suppress(OSError, smtplib.SMTPException):
                self.connection.quit()
            self.connection.close()

    def send(self, subject: str, text: str) -> None:
        message = EmailMessage(policy=SMTP)
        message["From"], message["To"], message["Subject"] = self.sender, self.address, subject
        message["Date"] = formatdate()
        message["Message-ID"] = make_msgid(domain=self.sender.partition("@")[2])
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(text)
        assert self.connection is not None  # noqa: S101 - entered by `with`
        try:
            code, _ = self.connection.data(message.as_bytes())
        except (OSError, smtplib.SMTPException) as error:
            _as_mail_failure(error)
        if code != 250:
            raise Failure("mail_refused", f"the mail server refused the message with code {code}")


def _as_mail_failure(error: BaseException) -> NoReturn:
    if isinstance(error, (OSError, smtplib.SMTPException, UnicodeError)):  # smtplib sends ASCII only
        # The kind only: a server may repeat in its answer what it was sent.
        reason = type(error).__name__
        raise Failure("mail_failed", f"the mail server could not be used ({reason})") from None
    raise error


def mail_security(host: str) -> str:
    security = setting("smtp_security", "starttls")
    if security not in ("starttls", "ssl", "none"):
        raise Failure("not_configured", "setting smtp_security must be starttls, ssl or none")
    if security == "none" and not is_loopback(host):
        raise Failure("not_configured", "smtp_security none is for a mail server on this machine only")
    return security


def connect_to_mail_server() -> smtplib.SMTP:
    host = setting("smtp_host")
    security = mail_security(host)
    port = number_setting("smtp_port", {"starttls": 587, "ssl": 465, "none": 25}[security], 1, 65535)
    here, timeout = socket.gethostname(), seconds_left()
    if security == "ssl":
        connection: smtplib.SMTP = smtplib.SMTP_SSL(host, port, here, timeout=timeout, context=tls_context())
    else:
        connection = smtplib.SMTP(host, port, here, timeout=timeout)
    try:
        if security == "starttls":
            connection.starttls(context=tls_context())
        account = setting("smtp_user", "")
        if account:
            connection.login(account, confidential("smtp_password"))
    except BaseException:
        connection.close()
        raise
    return connection


def masked(address: str) -> str:
    name, _, domain = address.partition("@")
    return f"{name[:1]}***@{domain}"


# The reset


def wanted_user(parameters: dict[str, Any]) -> str:
    user = parameters["user"]
    if user is None:
        user = (ctx.ticket or {}).get("user_id")
    if not user:
        raise Failure("invalid_parameters", "name a user, or give a ticket with a user_id", exit_code=2)
    if not isinstance(user, str) or not re.fullmatch(PARAMETERS["user"]["pattern"], user):
        raise Failure("invalid_user", "the user_id of the ticket is not the name of an account")
    protected = {name.strip().lower() for name in setting("protected_users", "root").split(",")}
    if user.lower() in protected:
        raise Failure("protected_account", f"{user} is never reset by this script")
    return user


def new_password() -> str:
    everything = "".join(PASSWORD_SETS)
    while True:
        password = "".join(secrets.choice(everything) for _ in range(PASSWORD_LENGTH))
        # Directories often demand each kind of character.
        if all(set(password) & set(characters) for characters in PASSWORD_SETS):
            return password


def reset_link(user: str, token: str) -> str:
    url = checked_url("reset_url")
    if "{token}" not in url:
        raise Failure("not_configured", "setting reset_url must contain {token}")
    return url.replace("{token}", token).replace("{user}", urllib.parse.quote(user, safe=""))


def demand_address(person: Person, notify_user: bool) -> str:
    if not notify_user:
        raise Failure("delivery_required", "without notify_user nobody would receive what this reset makes")
    if person.address is None or not ADDRESS.fullmatch(person.address):
        raise Failure("no_address", f"the directory has no usable mail address for {person.user}")
    return person.address


def mail_link(backend: Backend, person: Person, delivery: Delivery, result: dict[str, Any]) -> None:
    minutes = number_setting("reset_token_minutes", 30, 1, 1440)
    expires_at = (datetime.now(timezone.utc) + timedelta(minutes=minutes)).isoformat(timespec="seconds")
    token = secrets.token_urlsafe(32)
    text = (
        f"Hello,\n\na new password was asked for the account {person.user}. Choose it here:\n\n"
        f"{reset_link(person.user, token)}\n\nThe link works once, until {expires_at}.\n"
        "If you did not ask for this, do nothing and tell the helpdesk.\n"
    )
    digest = digest_of(token)
    backend.store_token(person, digest, expires_at)
    try:
        delivery.send("Choose a new password", text)
    except BaseException:
        backend.drop_token(person, digest)  # nobody has the link
        raise
    result.update(reset_status="link_sent", expires_at=expires_at)
    result["actions_performed"] += [
        f"STORED: hash of a one-time token for {person.user}",
        "MAILED: reset link",
    ]


def mail_password(
    backend: Backend, person: Person, delivery: Delivery, force: bool, result: dict[str, Any]
) -> None:
    password = new_password()
    demand = "You will be asked for a new one when you log in." if force else "Please change it soon."
    text = f"Hello,\n\nthe temporary password of the account {person.user} is:\n\n{password}\n\n{demand}\n"
    backend.set_password(person, password)
    result["reset_status"] = "password_set"
    result["actions_performed"].append(f"SET: temporary password of {person.user}")
    delivery.send("Your temporary password", text)
    result["reset_status"] = "temporary_password_sent"
    result["actions_performed"].append("MAILED: temporary password")


def let_provider_do_it(
    backend: Webhook, person: Person, parameters: dict[str, Any], result: dict[str, Any]
) -> None:
    """The provider makes the link or the password and tells the user: no secret passes through here."""
    action = "send_link" if parameters["reset_type"] == "self_service" else "send_password"
    wishes = {"force_change": parameters["force_change"], "notify_user": parameters["notify_user"]}
    answer = backend.call(action, person.handle, **wishes)
    result["reset_status"] = "done_by_provider"
    result["actions_performed"].append(f"ASKED PROVIDER: {action} for {person.user}")
    result["user_notified"] = answer.get("notified") is True
    if parameters["notify_user"] and not result["user_notified"]:
        raise Failure("not_notified", "the provider does not say that it told the user")


def reset_by_mail(
    backend: Backend, person: Person, parameters: dict[str, Any], result: dict[str, Any]
) -> None:
    address = demand_address(person, parameters["notify_user"])
    result["notification"] = {"channel": "mail", "address_masked": masked(address)}
    backend.prepare(parameters["reset_type"], parameters["force_change"])
    if parameters["reset_type"] == "self_service":
        reset_link(person.user, "")  # a mistake in the setting must show before anything is changed
    delivery = Delivery(address)
    if result["dry_run"]:
        what = "LINK" if parameters["reset_type"] == "self_service" else "TEMPORARY PASSWORD"
        result["actions_performed"].append(f"WOULD MAIL {what}: {person.user}")
        return
    ctx.progress(0.3, "reserving the delivery")
    with delivery:
        stop_if_cancelled()
        ctx.progress(0.6, "resetting")
        if parameters["reset_type"] == "self_service":
            mail_link(backend, person, delivery, result)
        else:
            mail_password(backend, person, delivery, parameters["force_change"], result)
        result["user_notified"] = True
    if parameters["force_change"]:
        # After the message: should this fail, the user can still log in, and the run says what is missing.
        backend.force_change(person)
        result["actions_performed"].append(f"FORCED: password change at the next log-in of {person.user}")


def carry_out(backend: Backend, user: str, parameters: dict[str, Any], result: dict[str, Any]) -> None:
    ctx.progress(0.1, "looking up the account")
    person = backend.find(user)
    stop_if_cancelled()
    if not (backend.delivers and isinstance(backend, Webhook)):
        reset_by_mail(backend, person, parameters, result)
    elif result["dry_run"]:
        result["actions_performed"].append(f"WOULD ASK PROVIDER: {user}")
    else:
        result["notification"] = {"channel": "provider", "address_masked": None}
        let_provider_do_it(backend, person, parameters, result)


def reset_password(parameters: dict[str, Any]) -> dict[str, Any]:
    user = wanted_user(parameters)
    backend = choose_backend(parameters["backend"])
    result: dict[str, Any] = {
        "reset_type": parameters["reset_type"],
        "user": user,
        "backend": backend.name,
        "reset_status": "not_changed",
        "user_notified": False,
        "notification": {"channel": None, "address_masked": None},
        "force_change": parameters["force_change"],
        "expires_at": None,
        "dry_run": parameters["dry_run"] or ctx.dry_run,
        "actions_performed": [],
    }
    try:
        carry_out(backend, user, parameters, result)
    except Failure as failure:
        failure.facts = {**result, **failure.facts}
        raise
    ctx.progress(1.0, "done")
    return result


def main() -> int:
    try:
        return finish({"success": True, **reset_password(read_parameters(sys.argv, PARAMETERS))}, 0)
    except Failure as failure:
        return finish_failed(failure)
    except Exception as error:
        # No text and no traceback: libraries put header values and lines of a protocol into both.
        ours = (
            line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_globals is globals()
        )
        return finish_failed(Failure("internal_error", f"{type(error).__name__} at line {list(ours)[-1]}"))


if __name__ == "__main__":
    sys.exit(main())
