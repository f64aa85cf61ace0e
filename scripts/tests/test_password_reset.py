"""Password reset against a real mail server, a real slapd, an HTTP provider and fake local tools."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import ssl
import stat
import urllib.parse
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import trustme
from conftest import Run, Sandbox
from servers import ADMIN, JDOE, SYSTEM_PATH, MailServer, Provider, Slapd, free_port

SCRIPT = "password_reset.py"

# `nobody` exists on every Unix; the settings below let it pass for the account of a person.
LOCAL_USER = "nobody"
LOCAL_ADDRESS = "no.body@example.org"

SMTP_SECRET = "canary-smtp-9f3/+=%"
LDAP_SECRET = "canary-ldap-77a1"
WEBHOOK_TOKEN = "canary-token-c0ffee"
WEBHOOK_KEY = "canary-key-5eaf00d"
CANARIES = (SMTP_SECRET, LDAP_SECRET, WEBHOOK_TOKEN, WEBHOOK_KEY)


def forms(value: str) -> set[str]:
    """The value as it is, and as an encoder on its way might have written it."""
    raw = value.encode()
    encoded = {
        value,
        urllib.parse.quote(value),
        urllib.parse.quote(value, safe=""),
        raw.hex(),
        raw.hex().upper(),
    }
    encoded |= {json.dumps(value)[1:-1], repr(value)[1:-1], repr(raw)[2:-1]}
    for shift in range(3):  # base64 at each alignment, without the characters that neighbours touch
        text = base64.b64encode(b"x" * shift + raw).decode()
        encoded.add(text[4 if shift else 0 :].rstrip("=")[:-2])
    return encoded


def assert_hidden(run: Run, sandbox: Sandbox, *values: str, argv_only: bool = False) -> None:
    """Nothing that the script said, and no command line or environment of a child, has one of the values."""
    calls = [
        call if not argv_only else {"argv": call["argv"], "env": call["env"]}
        for path in sandbox.root.glob("*.calls")
        for call in map(json.loads, path.read_text().splitlines())
    ]
    texts = {"what the script said": run.everything, "what its children were given": json.dumps(calls)}
    for value in (*CANARIES, *values):
        for form in forms(value):
            for place, text in texts.items():
                assert form not in text, f"{form!r} in {place}"


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def mail() -> Iterator[MailServer]:
    server = MailServer.start()
    yield server
    server.controller.stop()


@pytest.fixture
def configured(sandbox: Sandbox, mail: MailServer) -> Sandbox:
    """Settings that every back end needs."""
    tokens = sandbox.root / "tokens"
    tokens.mkdir(mode=0o700)
    sandbox.setting(
        smtp_host="127.0.0.1",
        smtp_port=str(mail.port),
        smtp_security="none",
        smtp_from="helpdesk@example.org",
        reset_url="https://reset.example.org/#{user}/{token}",
        reset_token_dir=str(tokens),
    )
    return sandbox


@pytest.fixture
def local(configured: Sandbox) -> Sandbox:
    addresses = configured.root / "addresses"
    addresses.write_text(
        f"# user: address\n{LOCAL_USER}: {LOCAL_ADDRESS}  # the only one\nother: other@example.org\n"
    )
    addresses.chmod(0o644)
    configured.setting(
        password_backend="local",
        mail_directory_file=str(addresses),
        local_uid_min="1",
        local_uid_max="999999999",
    )
    configured.program("chpasswd")
    configured.program("chage")
    return configured


def token_in(text: str) -> str:
    found = re.search(r"https://reset\.example\.org/#[^/]+/([A-Za-z0-9_-]{43})\s", text)
    assert found, text
    return found.group(1)


def password_in(text: str) -> str:
    found = re.search(r"is:\s+(\S{20})\s", text)
    assert found, text
    return found.group(1)


def stored_tokens(sandbox: Sandbox) -> dict[str, Any]:
    return {path.name: json.loads(path.read_text()) for path in (sandbox.root / "tokens").iterdir()}


# --- Local accounts -------------------------------------------------------------------------------


def test_a_link_goes_to_the_address_of_the_directory(
    run_script: Any, local: Sandbox, mail: MailServer
) -> None:
    run: Run = run_script(SCRIPT, {"user": LOCAL_USER})
    assert run.exit_code == 0, run.everything
    assert mail.mailbox.recipients == [LOCAL_ADDRESS]
    token = token_in(mail.mailbox.text())
    expires_at = datetime.fromisoformat(run.result["expires_at"])
    assert timedelta(minutes=29) < expires_at - datetime.now(timezone.utc) <= timedelta(minutes=30)
    assert stored_tokens(local) == {
        f"{LOCAL_USER}.json": {
            "user": LOCAL_USER,
            "token_sha256": hashlib.sha256(token.encode()).hexdigest(),
            "expires_at": run.result["expires_at"],
        }
    }
    assert stat.S_IMODE((local.root / "tokens" / f"{LOCAL_USER}.json").stat().st_mode) == 0o600
    assert run.result["notification"] == {"channel": "mail", "address_masked": "n***@example.org"}
    assert (run.result["reset_status"], run.result["user_notified"]) == ("link_sent", True)
    assert local.calls("chpasswd") == []
    assert_hidden(run, local, token)
    assert "no.body" not in run.everything


def test_a_new_link_replaces_the_old_one(run_script: Any, local: Sandbox, mail: MailServer) -> None:
    run_script(SCRIPT, {"user": LOCAL_USER})
    first = stored_tokens(local)
    run_script(SCRIPT, {"user": LOCAL_USER})
    second = stored_tokens(local)
    assert list(first) == list(second)
    assert first != second


def test_a_temporary_password_goes_through_stdin(run_script: Any, local: Sandbox, mail: MailServer) -> None:
    run = run_script(SCRIPT, {"user": LOCAL_USER, "reset_type": "temporary"})
    assert run.exit_code == 0, run.everything
    password = password_in(mail.mailbox.text())
    (call,) = local.calls("chpasswd")
    assert (call["argv"], call["stdin"]) == ([], f"{LOCAL_USER}:{password}\n")
    assert local.calls("chage") == []
    assert mail.mailbox.recipients == [LOCAL_ADDRESS]
    assert run.result["reset_status"] == "temporary_password_sent"
    assert run.result["expires_at"] is None
    assert_hidden(run, local, password, argv_only=True)


@pytest.mark.parametrize("reset_type", ["self_service", "temporary"])
def test_a_change_can_be_forced(run_script: Any, local: Sandbox, mail: MailServer, reset_type: str) -> None:
    run = run_script(SCRIPT, {"user": LOCAL_USER, "reset_type": reset_type, "force_change": True})
    assert run.exit_code == 0, run.everything
    assert local.argvs("chage") == [["-d", "0", "--", LOCAL_USER]]
    assert run.result["actions_performed"][-1].startswith("FORCED: ")


def test_passwords_are_random_and_strong(load: Any) -> None:
    module = load("password_reset")
    passwords = {module.new_password() for _ in range(500)}
    assert len(passwords) == 500
    for password in passwords:
        assert len(password) == 20
        assert all(set(password) & set(characters) for characters in module.PASSWORD_SETS)
        assert not set(password) & set("lI1O0:\n '\"\\")


@pytest.mark.parametrize("step", ["recipient", "text"])
@pytest.mark.parametrize("reset_type", ["self_service", "temporary"])
def test_a_refused_mail(
    run_script: Any, local: Sandbox, mail: MailServer, reset_type: str, step: str
) -> None:
    mail.mailbox.refuse = step
    run = run_script(SCRIPT, {"user": LOCAL_USER, "reset_type": reset_type, "force_change": True})
    assert (run.exit_code, run.error_code) == (1, "mail_refused")
    assert run.result["user_notified"] is False
    assert stored_tokens(local) == {}
    assert local.calls("chage") == []
    changed = reset_type == "temporary" and step == "text"
    assert len(local.calls("chpasswd")) == changed
    assert run.result["reset_status"] == ("password_set" if changed else "not_changed")
    if step == "text":
        text = mail.mailbox.text()
        assert_hidden(run, local, password_in(text) if changed else token_in(text), argv_only=True)


def test_without_a_mail_server_nothing_is_changed(run_script: Any, local: Sandbox) -> None:
    local.setting(smtp_port=str(free_port()))
    run = run_script(SCRIPT, {"user": LOCAL_USER, "reset_type": "temporary"})
    assert (run.exit_code, run.error_code) == (1, "mail_failed")
    assert local.calls("chpasswd") == []


@pytest.mark.parametrize("reset_type", ["self_service", "temporary"])
def test_without_notification_nothing_is_changed(
    run_script: Any, local: Sandbox, mail: MailServer, reset_type: str
) -> None:
    run = run_script(SCRIPT, {"user": LOCAL_USER, "reset_type": reset_type, "notify_user": False})
    assert (run.exit_code, run.error_code) == (1, "delivery_required")
    assert local.calls("chpasswd") == [] and stored_tokens(local) == {} and mail.mailbox.log == []


@pytest.mark.parametrize("reset_type", ["self_service", "temporary"])
def test_dry_run_changes_and_mails_nothing(
    run_script: Any, local: Sandbox, mail: MailServer, reset_type: str
) -> None:
    run = run_script(
        SCRIPT, {"user": LOCAL_USER, "reset_type": reset_type, "dry_run": True, "force_change": True}
    )
    assert run.exit_code == 0, run.everything
    assert (run.result["reset_status"], run.result["user_notified"]) == ("not_changed", False)
    assert [line[:10] for line in run.result["actions_performed"]] == ["WOULD MAIL"]
    assert local.all_calls() == "" and stored_tokens(local) == {} and mail.mailbox.log == []


@pytest.mark.parametrize("tool", ["chpasswd", "chage"])
def test_a_missing_tool_is_found_before_anything_is_changed(
    run_script: Any, local: Sandbox, mail: MailServer, tool: str
) -> None:
    (local.bin / tool).unlink()
    run = run_script(SCRIPT, {"user": LOCAL_USER, "reset_type": "temporary", "force_change": True})
    assert (run.exit_code, run.error_code) == (1, "tool_missing")
    assert local.all_calls() == "" and mail.mailbox.log == []


def test_a_tool_that_fails_and_repeats_its_input(run_script: Any, local: Sandbox, mail: MailServer) -> None:
    local.program("chpasswd", "print(typed); sys.exit('cannot set ' + typed)")
    run = run_script(SCRIPT, {"user": LOCAL_USER, "reset_type": "temporary"})
    assert (run.exit_code, run.error_code) == (1, "backend_refused")
    assert run.result["reset_status"] == "not_changed"
    assert mail.mailbox.messages == []
    (call,) = local.calls("chpasswd")
    assert_hidden(run, local, call["stdin"].strip().partition(":")[2], argv_only=True)


def test_forcing_a_change_that_fails_says_what_was_done(
    run_script: Any, local: Sandbox, mail: MailServer
) -> None:
    local.program("chage", "sys.exit(1)")
    run = run_script(SCRIPT, {"user": LOCAL_USER, "reset_type": "temporary", "force_change": True})
    assert (run.exit_code, run.error_code) == (1, "backend_refused")
    assert (run.result["reset_status"], run.result["user_notified"]) == ("temporary_password_sent", True)


@pytest.mark.parametrize(
    "user, settings, code",
    [
        ("no-such-user-4711", {}, "user_not_found"),
        ("root", {}, "protected_account"),
        ("ROOT", {}, "protected_account"),
        (LOCAL_USER, {"protected_users": "admin, Nobody"}, "protected_account"),
        (LOCAL_USER, {"local_uid_max": "59999"}, "protected_account"),
        ("root", {"protected_users": "admin"}, "protected_account"),  # by its number
        ("daemon", {"local_uid_min": "1000"}, "protected_account"),
        ("daemon", {}, "no_address"),
    ],
)
def test_accounts_that_are_never_reset(
    run_script: Any, local: Sandbox, mail: MailServer, user: str, settings: dict[str, str], code: str
) -> None:
    local.setting(**settings)
    run = run_script(SCRIPT, {"user": user, "reset_type": "temporary"})
    assert (run.exit_code, run.error_code) == (1, code)
    assert local.all_calls() == "" and mail.mailbox.log == []


HOSTILE = [
    "-d",
    "--root=/x",
    "a:b",
    "a b",
    "a\nb",
    "nobody\n",
    "../a",
    "a/b",
    "$(id)",
    "*",
    "a)(uid=*",
    "",
    "а",
    "x" * 65,
]


@pytest.mark.parametrize("user", HOSTILE)
def test_hostile_names_reach_nothing(run_script: Any, local: Sandbox, mail: MailServer, user: str) -> None:
    run = run_script(SCRIPT, {"user": user, "reset_type": "temporary"})
    assert (run.exit_code, run.error_code) == (2, "invalid_parameters")
    assert local.all_calls() == "" and mail.mailbox.log == []


def test_addresses_by_domain(run_script: Any, local: Sandbox, mail: MailServer) -> None:
    local.setting(mail_directory_file="", mail_domain="corp.example")
    assert run_script(SCRIPT, {"user": LOCAL_USER}).exit_code == 0
    assert mail.mailbox.recipients == [f"{LOCAL_USER}@corp.example"]


def test_a_directory_file_that_others_can_write_is_refused(
    run_script: Any, local: Sandbox, mail: MailServer
) -> None:
    (local.root / "addresses").chmod(0o666)
    run = run_script(SCRIPT, {"user": LOCAL_USER})
    assert (run.exit_code, run.error_code) == (1, "insecure_file")
    assert mail.mailbox.log == []


@pytest.mark.parametrize("trouble", ["open", "link", "missing"])
def test_a_token_folder_that_is_not_private_is_refused(
    run_script: Any, local: Sandbox, mail: MailServer, trouble: str
) -> None:
    tokens = local.root / "tokens"
    if trouble == "open":
        tokens.chmod(0o750)
    else:
        tokens.rename(local.root / "moved")
        if trouble == "link":
            tokens.symlink_to(local.root / "moved")
    run = run_script(SCRIPT, {"user": LOCAL_USER})
    assert (run.exit_code, run.error_code) == (
        1,
        "insecure_folder" if trouble == "open" else "not_configured",
    )
    assert mail.mailbox.log == []


@pytest.mark.parametrize(
    "address", ["x@y\nBcc: evil@example.org", "a@b, c@d", "<a@b.org>", "-x@example.org", "plain", "a@b@c"]
)
def test_an_address_that_is_more_than_one_address(load: Any, address: str) -> None:
    module = load("password_reset")
    with pytest.raises(module.Failure) as caught:
        module.demand_address(module.Person("jdoe", address, "jdoe"), True)
    assert caught.value.code == "no_address"


# --- Tickets and the context ----------------------------------------------------------------------


def test_the_ticket_names_the_user_and_never_the_address(
    run_ticket: Any, local: Sandbox, mail: MailServer
) -> None:
    ticket = {
        "id": "T-1",
        "user_id": LOCAL_USER,
        "email": "evil@example.net",
        "user_email": "evil@example.net",
        "issue_text": "Please send it to evil@example.net, my user is root",
    }
    run = run_ticket(ticket, "Password Reset")
    assert run.exit_code == 0, run.everything
    assert run.result["user"] == LOCAL_USER
    assert mail.mailbox.recipients == [LOCAL_ADDRESS]
    assert "example.net" not in mail.mailbox.messages[0].as_string()


def test_the_ticket_of_an_unknown_user(run_ticket: Any, local: Sandbox, mail: MailServer) -> None:
    run = run_ticket({"id": "T-1", "user_id": "jdoe"}, "Password Reset")
    assert (run.exit_code, run.error_code) == (1, "user_not_found")
    assert run.result["user"] == "jdoe"


@pytest.mark.parametrize("user_id", ["-d", "a:b", "a\nb", "../x", "x" * 65, "a)(uid=*"])
def test_hostile_user_ids_in_tickets(run_ticket: Any, local: Sandbox, mail: MailServer, user_id: str) -> None:
    run = run_ticket({"id": "T-1", "user_id": user_id}, "Password Reset")
    assert (run.exit_code, run.error_code) == (1, "invalid_user")
    assert mail.mailbox.log == []


def test_without_user_and_ticket(run_script: Any, local: Sandbox) -> None:
    run = run_script(SCRIPT, {})
    assert (run.exit_code, run.error_code) == (2, "invalid_parameters")


def test_the_context_can_ask_for_a_dry_run(run_with_context: Any, local: Sandbox, mail: MailServer) -> None:
    run = run_with_context(SCRIPT, {"user": LOCAL_USER}, {"dry_run": True})
    assert run.result["dry_run"] is True
    assert mail.mailbox.log == []


@pytest.mark.parametrize("looks", [0, 1])
def test_a_cancelled_run_changes_nothing(
    run_with_context: Any, local: Sandbox, mail: MailServer, looks: int
) -> None:
    parameters = {"user": LOCAL_USER, "reset_type": "temporary"}
    run = run_with_context(SCRIPT, parameters, {"looks_before_cancel": looks})
    assert (run.exit_code, run.error_code) == (1, "cancelled")
    assert local.all_calls() == "" and mail.mailbox.messages == []


# --- Mail transport -------------------------------------------------------------------------------


def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    return context


@pytest.fixture
def secure_mail(authority: trustme.CA) -> Iterator[MailServer]:
    server = MailServer.start(server_context(authority), ("helpdesk", SMTP_SECRET))
    yield server
    server.controller.stop()


def use_secure_mail(sandbox: Sandbox, server: MailServer, authority: trustme.CA | None) -> None:
    sandbox.setting(smtp_port=str(server.port), smtp_security="starttls", smtp_user="helpdesk")
    if authority:
        authority.cert_pem.write_to_path(str(sandbox.root / "ca.pem"))
        sandbox.setting(tls_ca_file=str(sandbox.root / "ca.pem"))


def test_starttls_and_log_in(
    run_script: Any, local: Sandbox, secure_mail: MailServer, authority: trustme.CA
) -> None:
    use_secure_mail(local, secure_mail, authority)
    run = run_script(SCRIPT, {"user": LOCAL_USER, "reset_type": "temporary"}, {"smtp_password": SMTP_SECRET})
    assert run.exit_code == 0, run.everything
    assert_hidden(run, local, password_in(secure_mail.mailbox.text()), argv_only=True)


def test_a_mail_server_with_an_unknown_certificate(
    run_script: Any, local: Sandbox, secure_mail: MailServer
) -> None:
    use_secure_mail(local, secure_mail, None)
    run = run_script(SCRIPT, {"user": LOCAL_USER, "reset_type": "temporary"}, {"smtp_password": SMTP_SECRET})
    assert (run.exit_code, run.error_code) == (1, "mail_failed")
    assert local.all_calls() == ""


def test_a_mail_server_without_starttls(run_script: Any, local: Sandbox, mail: MailServer) -> None:
    local.setting(smtp_security="starttls", smtp_user="helpdesk")
    run = run_script(
        SCRIPT, {"user": LOCAL_USER, "reset_type": "temporary"}, {"smtp_password": "canary-1234"}
    )
    assert (run.exit_code, run.error_code) == (1, "mail_failed")
    assert local.all_calls() == "" and mail.mailbox.log == []


@pytest.mark.parametrize("wrong", ["canary-1234", "canary-ключ"])
def test_a_wrong_smtp_password(
    run_script: Any, local: Sandbox, secure_mail: MailServer, authority: trustme.CA, wrong: str
) -> None:
    use_secure_mail(local, secure_mail, authority)
    run = run_script(SCRIPT, {"user": LOCAL_USER, "reset_type": "temporary"}, {"smtp_password": wrong})
    assert (run.exit_code, run.error_code) == (1, "mail_failed")
    assert_hidden(run, local, wrong)
    assert local.all_calls() == ""


@pytest.mark.parametrize(
    "settings",
    [
        {"smtp_host": "mail.example.org"},  # in the clear, over a network
        {"smtp_security": "maybe"},
        {"smtp_port": "0"},
        {"smtp_port": "x"},
        {"smtp_from": "not an address"},
        {"smtp_from": "a@b.org\nBcc: c@d.org"},
        {"reset_url": "http://reset.example.org/{token}"},
        {"reset_url": "https://reset.example.org/"},
        {"reset_url": "file:///{token}"},
        {"reset_token_minutes": "0"},
        {"password_backend": "other"},
    ],
)
def test_settings_that_would_be_unsafe(
    run_script: Any, local: Sandbox, mail: MailServer, settings: dict[str, str]
) -> None:
    local.setting(**settings)
    run = run_script(SCRIPT, {"user": LOCAL_USER})
    assert (run.exit_code, run.error_code) == (1, "not_configured")
    assert stored_tokens(local) == {} and mail.mailbox.messages == []


def test_settings_may_be_named_secrets(run_script: Any, local: Sandbox, mail: MailServer) -> None:
    local.monkeypatch.delenv("AUTOMATION_SETTING_SMTP_FROM")
    assert run_script(SCRIPT, {"user": LOCAL_USER}).error_code == "not_configured"
    run = run_script(SCRIPT, {"user": LOCAL_USER}, {"smtp_from": "other.helpdesk@example.org"})
    assert run.exit_code == 0, run.everything
    assert mail.mailbox.messages[0]["From"] == "other.helpdesk@example.org"


def test_a_confidential_value_is_not_read_as_a_setting(run_script: Any, local: Sandbox) -> None:
    local.setting(smtp_user="helpdesk", smtp_password="canary-1234")
    run = run_script(SCRIPT, {"user": LOCAL_USER})
    assert run.error_code == "not_configured"
    assert "smtp_password" in run.result["error"]["message"]


# --- LDAP -----------------------------------------------------------------------------------------


def start_slapd(request: pytest.FixtureRequest, folder: Path, policy: bool, authority: trustme.CA) -> Slapd:
    if request.config.getoption("--no-ldap"):
        pytest.skip("--no-ldap")
    certificate = authority.issue_cert("127.0.0.1")
    chain, key, ca = (str(folder / name) for name in ("chain.pem", "key.pem", "ca.pem"))
    certificate.private_key_pem.write_to_path(key)
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(chain, append=True)
    authority.cert_pem.write_to_path(ca)
    return Slapd(folder / "slapd", LDAP_SECRET, policy, (ca, chain, key))


@pytest.fixture(scope="module")
def slapd(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, authority: trustme.CA
) -> Iterator[Slapd]:
    server = start_slapd(request, tmp_path_factory.mktemp("ldap"), True, authority)
    yield server
    server.stop()


def use_ldap(sandbox: Sandbox, server: Slapd) -> None:
    sandbox.setting(
        password_backend="ldap",
        ldap_url=server.url,
        ldap_base_dn="ou=people,dc=example,dc=org",
        ldap_bind_dn=ADMIN,
    )
    for name in ("ldapsearch", "ldappasswd", "ldapmodify"):
        # The real program, with a record of how it was called.
        real = shutil.which(name, path=SYSTEM_PATH)
        sandbox.program(name, f"os.execv({real!r}, [{name!r}, *sys.argv[1:]])")


@pytest.fixture
def ldap(configured: Sandbox, slapd: Slapd) -> Sandbox:
    slapd.reset_jdoe()
    use_ldap(configured, slapd)
    return configured


LDAP_SECRETS = {"ldap_bind_password": LDAP_SECRET}


def test_ldap_temporary_password(run_script: Any, ldap: Sandbox, slapd: Slapd, mail: MailServer) -> None:
    assert slapd.accepts(JDOE, "the-old-password")
    run = run_script(SCRIPT, {"user": "jdoe", "reset_type": "temporary"}, LDAP_SECRETS)
    assert run.exit_code == 0, run.everything
    password = password_in(mail.mailbox.text())
    assert slapd.accepts(JDOE, password)
    assert not slapd.accepts(JDOE, "the-old-password")
    assert mail.mailbox.recipients == ["john.doe@example.org"]
    assert run.result["notification"]["address_masked"] == "j***@example.org"
    assert len(ldap.calls("ldappasswd")) == 1
    assert_hidden(run, ldap, password)
    assert os.listdir(ldap.temp) == []  # no file with a password was left


def test_ldap_forces_a_change(run_script: Any, ldap: Sandbox, slapd: Slapd, mail: MailServer) -> None:
    parameters = {"user": "jdoe", "reset_type": "temporary", "force_change": True}
    run = run_script(SCRIPT, parameters, LDAP_SECRETS)
    assert run.exit_code == 0, run.everything
    found = slapd.client("ldapsearch", "-LLL", "-b", "dc=example,dc=org", "(uid=jdoe)", "pwdReset")
    assert "pwdReset: TRUE" in found
    assert_hidden(run, ldap, password_in(mail.mailbox.text()))


def test_ldap_that_cannot_force_a_change(
    run_script: Any,
    request: pytest.FixtureRequest,
    configured: Sandbox,
    tmp_path_factory: pytest.TempPathFactory,
    authority: trustme.CA,
    mail: MailServer,
) -> None:
    server = start_slapd(request, tmp_path_factory.mktemp("plain"), False, authority)
    try:
        use_ldap(configured, server)
        parameters = {"user": "jdoe", "reset_type": "temporary", "force_change": True}
        run = run_script(SCRIPT, parameters, LDAP_SECRETS)
        assert (run.exit_code, run.error_code) == (1, "force_change_unsupported")
        assert server.accepts(JDOE, "the-old-password")
        assert mail.mailbox.log == []
    finally:
        server.stop()


def test_ldap_link(run_script: Any, ldap: Sandbox, slapd: Slapd, mail: MailServer) -> None:
    run = run_script(SCRIPT, {"user": "jdoe"}, LDAP_SECRETS)
    assert run.exit_code == 0, run.everything
    assert mail.mailbox.recipients == ["john.doe@example.org"]
    assert list(stored_tokens(ldap)) == ["jdoe.json"]
    assert slapd.accepts(JDOE, "the-old-password")
    assert_hidden(run, ldap, token_in(mail.mailbox.text()))


@pytest.mark.parametrize(
    "user, code", [("nobody-here", "user_not_found"), ("nomail", "no_address"), ("twin", "ambiguous_user")]
)
def test_ldap_accounts_without_a_single_address(
    run_script: Any, ldap: Sandbox, mail: MailServer, user: str, code: str
) -> None:
    run = run_script(SCRIPT, {"user": user, "reset_type": "temporary"}, LDAP_SECRETS)
    assert (run.exit_code, run.error_code) == (1, code)
    assert ldap.calls("ldappasswd") == [] and mail.mailbox.log == []


def test_ldap_with_a_wrong_password(run_script: Any, ldap: Sandbox, mail: MailServer) -> None:
    run = run_script(SCRIPT, {"user": "jdoe"}, {"ldap_bind_password": "canary-wrong-1"})
    assert (run.exit_code, run.error_code) == (1, "backend_refused")
    assert "exit code 49" in run.result["error"]["message"]
    assert_hidden(run, ldap, "canary-wrong-1")


def test_ldap_over_tls(
    run_script: Any, ldap: Sandbox, slapd: Slapd, mail: MailServer, authority: trustme.CA
) -> None:
    ldap.setting(ldap_url=slapd.tls_url)
    assert run_script(SCRIPT, {"user": "jdoe"}, LDAP_SECRETS).error_code == "backend_refused"
    authority.cert_pem.write_to_path(str(ldap.root / "ca.pem"))
    ldap.setting(tls_ca_file=str(ldap.root / "ca.pem"))
    run = run_script(SCRIPT, {"user": "jdoe", "reset_type": "temporary"}, LDAP_SECRETS)
    assert run.exit_code == 0, run.everything
    assert slapd.accepts(JDOE, password_in(mail.mailbox.text()))


def test_ldap_over_a_network_demands_starttls(run_script: Any, configured: Sandbox) -> None:
    configured.program("ldapsearch", "sys.exit(1)")
    configured.setting(
        password_backend="ldap", ldap_url="ldap://ldap.example.org", ldap_base_dn="dc=x", ldap_bind_dn="cn=x"
    )
    run_script(SCRIPT, {"user": "jdoe"}, LDAP_SECRETS)
    assert "-ZZ" in configured.argvs("ldapsearch")[0]
    configured.setting(ldap_url="http://ldap.example.org")
    assert run_script(SCRIPT, {"user": "jdoe"}, LDAP_SECRETS).error_code == "not_configured"


# --- Identity provider ----------------------------------------------------------------------------

WEBHOOK_SECRETS = {"webhook_token": WEBHOOK_TOKEN, "webhook_hmac_key": WEBHOOK_KEY}


@pytest.fixture
def provider(configured: Sandbox) -> Iterator[Provider]:
    server = Provider(WEBHOOK_TOKEN, WEBHOOK_KEY)
    server.answers["find_user"] = {"found": True, "delivery": "mail", "address": "jane@example.org"}
    configured.setting(password_backend="webhook", webhook_url=server.url)
    yield server
    server.stop()


def test_provider_gets_the_hash_of_the_token(
    run_script: Any, configured: Sandbox, provider: Provider, mail: MailServer
) -> None:
    run = run_script(SCRIPT, {"user": "jane"}, WEBHOOK_SECRETS)
    assert run.exit_code == 0, run.everything
    token = token_in(mail.mailbox.text())
    assert provider.actions() == ["find_user", "store_token"]
    assert provider.requests[1] == {
        "action": "store_token",
        "user": "jane",
        "token_sha256": hashlib.sha256(token.encode()).hexdigest(),
        "expires_at": run.result["expires_at"],
    }
    assert mail.mailbox.recipients == ["jane@example.org"]
    assert stored_tokens(configured) == {}
    assert_hidden(run, configured, token)


def test_provider_sets_a_temporary_password(
    run_script: Any, configured: Sandbox, provider: Provider, mail: MailServer
) -> None:
    parameters = {"user": "jane", "reset_type": "temporary", "force_change": True}
    run = run_script(SCRIPT, parameters, WEBHOOK_SECRETS)
    assert run.exit_code == 0, run.everything
    password = password_in(mail.mailbox.text())
    assert provider.actions() == ["find_user", "set_password", "force_change"]
    assert provider.requests[1]["password"] == password
    assert_hidden(run, configured, password)


@pytest.mark.parametrize(
    "reset_type, action", [("self_service", "send_link"), ("temporary", "send_password")]
)
def test_provider_that_delivers_by_itself(
    run_script: Any, configured: Sandbox, provider: Provider, mail: MailServer, reset_type: str, action: str
) -> None:
    provider.answers.update(find_user={"found": True, "delivery": "provider"}, **{action: {"notified": True}})
    run = run_script(
        SCRIPT, {"user": "jane", "reset_type": reset_type, "force_change": True}, WEBHOOK_SECRETS
    )
    assert run.exit_code == 0, run.everything
    assert provider.requests[1] == {
        "action": action,
        "user": "jane",
        "force_change": True,
        "notify_user": True,
    }
    assert run.result["notification"] == {"channel": "provider", "address_masked": None}
    assert (run.result["reset_status"], run.result["user_notified"]) == ("done_by_provider", True)
    assert mail.mailbox.log == []


def test_provider_that_does_not_say_that_it_told_the_user(run_script: Any, provider: Provider) -> None:
    provider.answers["find_user"] = {"found": True, "delivery": "provider"}
    run = run_script(SCRIPT, {"user": "jane"}, WEBHOOK_SECRETS)
    assert (run.exit_code, run.error_code) == (1, "not_notified")
    quiet = run_script(SCRIPT, {"user": "jane", "notify_user": False}, WEBHOOK_SECRETS)
    assert (quiet.exit_code, quiet.result["user_notified"]) == (0, False)


def test_provider_dry_run_only_looks(run_script: Any, provider: Provider, mail: MailServer) -> None:
    run = run_script(SCRIPT, {"user": "jane", "dry_run": True}, WEBHOOK_SECRETS)
    provider.answers["find_user"] = {"found": True, "delivery": "provider"}
    second = run_script(SCRIPT, {"user": "jane", "dry_run": True}, WEBHOOK_SECRETS)
    assert (run.exit_code, second.exit_code) == (0, 0)
    assert provider.actions() == ["find_user", "find_user"]
    assert mail.mailbox.log == []


def test_provider_mail_refused_drops_the_token(run_script: Any, provider: Provider, mail: MailServer) -> None:
    mail.mailbox.refuse = "text"
    run = run_script(SCRIPT, {"user": "jane"}, WEBHOOK_SECRETS)
    assert run.error_code == "mail_refused"
    assert provider.actions() == ["find_user", "store_token", "drop_token"]
    assert provider.requests[1]["token_sha256"] == provider.requests[2]["token_sha256"]


@pytest.mark.parametrize("answer", [500, 401, 301, 302, 303, 307, 308, b"not json", b"[1]", b"\xff"])
def test_provider_that_refuses_and_repeats_what_it_got(
    run_script: Any, configured: Sandbox, provider: Provider, mail: MailServer, answer: Any
) -> None:
    provider.answers["set_password"] = answer
    run = run_script(SCRIPT, {"user": "jane", "reset_type": "temporary"}, WEBHOOK_SECRETS)
    assert run.exit_code == 1
    assert run.error_code == (
        "backend_unreachable" if answer in (b"not json", b"\xff") else "backend_refused"
    )
    assert set(provider.paths) == {"/hook"}  # no redirect was followed
    assert mail.mailbox.messages == []
    assert_hidden(run, configured, provider.requests[1]["password"])


def test_provider_that_is_not_there(run_script: Any, configured: Sandbox, provider: Provider) -> None:
    configured.setting(webhook_url=f"http://127.0.0.1:{free_port()}/")
    run = run_script(SCRIPT, {"user": "jane"}, WEBHOOK_SECRETS)
    assert (run.exit_code, run.error_code) == (1, "backend_unreachable")


def test_provider_with_another_key_refuses(run_script: Any, configured: Sandbox, provider: Provider) -> None:
    run = run_script(SCRIPT, {"user": "jane"}, {**WEBHOOK_SECRETS, "webhook_hmac_key": "canary-other-key"})
    assert (run.exit_code, run.error_code) == (1, "backend_refused")
    assert_hidden(run, configured, "canary-other-key")


def test_provider_does_not_know_the_user(run_script: Any, provider: Provider) -> None:
    provider.answers["find_user"] = {"found": False}
    assert run_script(SCRIPT, {"user": "jane"}, WEBHOOK_SECRETS).error_code == "user_not_found"


@pytest.mark.parametrize(
    "url", ["http://idp.example.org/", "ftp://127.0.0.1/", "file:///etc/passwd", "https://", "x"]
)
def test_provider_addresses_that_would_be_unsafe(run_script: Any, configured: Sandbox, url: str) -> None:
    configured.setting(password_backend="webhook", webhook_url=url)
    run = run_script(SCRIPT, {"user": "jane"}, WEBHOOK_SECRETS)
    assert (run.exit_code, run.error_code) == (1, "not_configured")


def test_a_proxy_in_the_environment_sees_nothing(
    run_script: Any, configured: Sandbox, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Provider(WEBHOOK_TOKEN, WEBHOOK_KEY)
    try:
        monkeypatch.setenv("http_proxy", other.url)
        monkeypatch.delenv("no_proxy", raising=False)
        assert run_script(SCRIPT, {"user": "jane"}, WEBHOOK_SECRETS).exit_code == 0
        assert other.paths == []
    finally:
        other.stop()


def test_a_secret_that_breaks_a_library_is_not_shown(
    run_script: Any, configured: Sandbox, provider: Provider
) -> None:
    """http.client puts a bad header value into the text of its exception."""
    run = run_script(
        SCRIPT, {"user": "jane"}, {**WEBHOOK_SECRETS, "webhook_token": "canary-bad\r\nX-Other: 1"}
    )
    assert run.exit_code == 1
    assert_hidden(run, configured, "canary-bad")


def test_an_unforeseen_error_shows_its_kind_and_line_only(
    load: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    module = load("password_reset")

    def broken(parameters: Any) -> None:
        raise RuntimeError("canary-in-an-exception")

    module.reset_password = broken
    module.sys = type("", (), {"argv": [""]})
    assert module.main() == 1
    output = capsys.readouterr().out
    assert json.loads(output)["error"]["code"] == "internal_error"
    assert re.search(r"RuntimeError at line \d+", output)
    assert "canary" not in output
