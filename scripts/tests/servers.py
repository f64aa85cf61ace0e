"""Real servers on loopback for the password tests: mail, directory, identity provider."""

from __future__ import annotations

import email
import email.policy
import hashlib
import hmac
import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

SYSTEM_PATH = os.defpath + ":/usr/local/sbin:/usr/sbin:/sbin"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


# --- Mail -----------------------------------------------------------------------------------------


@dataclass
class Mailbox:
    """Receives mail, or refuses it at the step that a test names; repeats what it got in its refusals."""

    refuse: str | None = None
    messages: list[Any] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)

    async def handle_RCPT(
        self, server: Any, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        self.log.append("RCPT")
        if self.refuse == "recipient":
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.log.append("DATA")
        text = envelope.content.decode()
        self.messages.append(email.message_from_string(text, policy=email.policy.default))
        self.recipients += envelope.rcpt_tos
        if self.refuse == "text":
            return "554 refused: " + " ".join(text.split())[:400]
        return "250 OK"

    def text(self) -> str:
        (message,) = self.messages
        return str(message.get_content())


@dataclass
class MailServer:
    mailbox: Mailbox
    port: int
    controller: Controller

    @classmethod
    def start(cls, tls: ssl.SSLContext | None = None, account: tuple[str, str] | None = None) -> MailServer:
        def authenticate(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
            given = isinstance(data, LoginPassword) and (data.login.decode(), data.password.decode())
            return AuthResult(success=given == account, handled=False)  # the server answers 535

        mailbox, port = Mailbox(), free_port()
        extra: dict[str, Any] = {}
        if tls is not None:
            extra.update(tls_context=tls, require_starttls=True)
        if account is not None:
            extra.update(authenticator=authenticate, auth_required=True, auth_require_tls=tls is not None)
        controller = Controller(mailbox, hostname="127.0.0.1", port=port, **extra)
        controller.start()
        return cls(mailbox, port, controller)


# --- Identity provider ----------------------------------------------------------------------------


class Provider(ThreadingHTTPServer):
    """Answers what a test says for each action, and checks the signature of every request."""

    daemon_threads = True

    def __init__(self, token: str, key: str) -> None:
        super().__init__(("127.0.0.1", 0), _ProviderHandler)
        self.token, self.key = token, key
        self.answers: dict[str, Any] = {}
        self.requests: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/hook"

    def actions(self) -> list[str]:
        return [request["action"] for request in self.requests]

    def stop(self) -> None:
        self.shutdown()
        self.server_close()


class _ProviderHandler(BaseHTTPRequestHandler):
    server: Provider

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.paths.append(self.path)
        signed = self.headers["X-Automation-Timestamp"].encode() + b"." + body
        expected = hmac.new(self.server.key.encode(), signed, hashlib.sha256).hexdigest()
        genuine = hmac.compare_digest(self.headers["X-Automation-Signature"], f"sha256={expected}")
        fresh = abs(time.time() - int(self.headers["X-Automation-Timestamp"])) < 60
        if not (genuine and fresh and self.headers["Authorization"] == f"Bearer {self.server.token}"):
            return self._answer(401, {})
        request = json.loads(body)
        self.server.requests.append(request)
        answer = self.server.answers.get(request["action"], {})
        if isinstance(answer, int):
            # A provider that repeats everything it was sent.
            return self._answer(answer, {"request": request, "authorization": self.headers["Authorization"]})
        return self._answer(200, answer)

    do_GET = do_POST

    def _answer(self, status: int, answer: Any) -> None:
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


# --- Directory ------------------------------------------------------------------------------------

CONFIGURATION = """
include {schema}/core.schema
include {schema}/cosine.schema
include {schema}/inetorgperson.schema
modulepath {modules}
moduleload back_mdb
{load_policy}
pidfile {folder}/slapd.pid
{tls}
database mdb
suffix dc=example,dc=org
rootdn cn=admin,dc=example,dc=org
rootpw {password}
directory {folder}/data
{policy}
"""

ENTRIES = """
dn: dc=example,dc=org
objectClass: domain
dc: example

dn: ou=people,dc=example,dc=org
objectClass: organizationalUnit
ou: people

dn: cn=Jöhn Doe\\, Jr.,ou=people,dc=example,dc=org
objectClass: inetOrgPerson
cn: Jöhn Doe, Jr.
sn: Doe
uid: jdoe
mail: john.doe@example.org
userPassword: the-old-password

dn: cn=No Mail,ou=people,dc=example,dc=org
objectClass: inetOrgPerson
cn: No Mail
sn: Mail
uid: nomail

dn: cn=Twin A,ou=people,dc=example,dc=org
objectClass: inetOrgPerson
cn: Twin A
sn: Twin
uid: twin
mail: a@example.org

dn: cn=Twin B,ou=people,dc=example,dc=org
objectClass: inetOrgPerson
cn: Twin B
sn: Twin
uid: twin
mail: b@example.org
"""

JDOE = "cn=Jöhn Doe\\, Jr.,ou=people,dc=example,dc=org"
ADMIN = "cn=admin,dc=example,dc=org"


class Slapd:
    """OpenLDAP's server with a folder and ports of its own."""

    def __init__(
        self, folder: Path, password: str, policy: bool, certificate: tuple[str, str, str] | None
    ) -> None:
        self.folder, self.password = folder, password
        self.port, self.tls_port = free_port(), free_port()
        (folder / "data").mkdir(parents=True)
        tls = ""
        if certificate:
            authority, chain, key = certificate
            tls = f"TLSCACertificateFile {authority}\nTLSCertificateFile {chain}\nTLSCertificateKeyFile {key}"
        configuration = CONFIGURATION.format(
            schema=self._first("/etc/ldap/schema", "/etc/openldap/schema"),
            modules=self._first("/usr/lib/ldap", "/usr/lib64/openldap", "/usr/lib/openldap"),
            folder=folder,
            password=password,
            load_policy="moduleload ppolicy" if policy else "",
            policy="overlay ppolicy" if policy else "",
            tls=tls,
        )
        (folder / "slapd.conf").write_text(configuration)
        slapd = shutil.which("slapd", path=SYSTEM_PATH)
        assert slapd and shutil.which("ldappasswd", path=SYSTEM_PATH), (
            "these tests need the Debian packages slapd and ldap-utils (apt-get install slapd ldap-utils), "
            "or the option --no-ldap"
        )
        urls = f"ldap://127.0.0.1:{self.port}/ ldaps://127.0.0.1:{self.tls_port}/"
        arguments = [
            "-h",
            urls if certificate else urls.split()[0],
            "-f",
            str(folder / "slapd.conf"),
            "-d",
            "0",
        ]
        self.process = subprocess.Popen([slapd, *arguments], stderr=subprocess.PIPE)
        self._wait()
        self.client("ldapadd", typed=ENTRIES)

    @staticmethod
    def _first(*folders: str) -> str:
        return next((folder for folder in folders if os.path.isdir(folder)), folders[0])

    def _wait(self) -> None:
        end = time.monotonic() + 20
        while True:
            assert self.process.poll() is None, f"slapd ended: {self.process.stderr.read()!r}"  # type: ignore[union-attr]
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                assert time.monotonic() < end, "slapd does not listen"
                time.sleep(0.05)

    @property
    def url(self) -> str:
        return f"ldap://127.0.0.1:{self.port}"

    @property
    def tls_url(self) -> str:
        return f"ldaps://127.0.0.1:{self.tls_port}"

    def client(self, program: str, *arguments: str, typed: str = "") -> str:
        path = shutil.which(program, path=SYSTEM_PATH)
        assert path
        command = [path, "-x", "-H", self.url, "-D", ADMIN, "-w", self.password, *arguments]
        done = subprocess.run(command, input=typed, capture_output=True, text=True, timeout=20)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def accepts(self, name: str, password: str) -> bool:
        path = shutil.which("ldapwhoami", path=SYSTEM_PATH)
        assert path
        done = subprocess.run(
            [path, "-x", "-H", self.url, "-D", name, "-w", password], capture_output=True, timeout=20
        )
        return done.returncode == 0

    def reset_jdoe(self) -> None:
        self.client("ldappasswd", "-s", "the-old-password", JDOE)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=20)
        assert self.process.stderr
        self.process.stderr.close()
