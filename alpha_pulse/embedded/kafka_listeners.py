"""Addresses of the broker with TLS, passwords and client certificates, beside the plain one.

The broker that `demo` and `up` start has none: it listens on loopback, for one user. With these it
shows how roles and readers connect to a secured Kafka (`docs/security.md`).
"""

import base64
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SCRAM = "SCRAM-SHA-512"
_ITERATIONS = 4096


@dataclass(frozen=True, kw_only=True)
class SecureListener:
    """One address of the broker that speaks TLS.

    name: capital letters. key_file: PEM, the broker's private key (PKCS 8) and certificate chain.
    client_ca_file: PEM; set, only clients with a certificate of that authority come in, and their
    common name is the user. scram: clients prove a name and password; then they are that user.
    """

    name: str
    key_file: Path
    client_ca_file: Path | None = None
    scram: bool = False

    @property
    def protocol(self) -> str:
        """Kafka's name of what is spoken there."""
        return "SASL_SSL" if self.scram else "SSL"

    def settings(self) -> dict[str, str]:
        """Return the broker's settings of this listener."""
        found = {"ssl.keystore.type": "PEM", "ssl.keystore.location": str(self.key_file)}
        if self.client_ca_file is not None:
            found |= {
                "ssl.truststore.type": "PEM",
                "ssl.truststore.location": str(self.client_ca_file),
                "ssl.client.auth": "required",
                "ssl.principal.mapping.rules": "RULE:^CN=([^,]+).*$/$1/,DEFAULT",
            }
        if self.scram:
            login = "org.apache.kafka.common.security.scram.ScramLoginModule"
            found |= {
                "sasl.enabled.mechanisms": SCRAM,
                f"{SCRAM.lower()}.sasl.jaas.config": f"{login} required;",
            }
        return {f"listener.name.{self.name.lower()}.{key}": value for key, value in found.items()}


@dataclass(frozen=True, kw_only=True)
class KafkaSecurity:
    """Everything that secures a broker: its listeners, the users of SCRAM, and whether it asks.

    authorizing: everybody but who comes over the plain loopback address needs a right (ACL) for
    everything. scram_users: name to password; kept as salted hashes, from the first start on.
    """

    listeners: Sequence[SecureListener] = ()
    scram_users: Mapping[str, str] | None = None
    authorizing: bool = False

    def settings(self) -> str:
        """Return lines for server.properties, but for the lists of listeners."""
        lines: dict[str, str] = {}
        for listener in self.listeners:
            lines |= listener.settings()
        if self.authorizing:
            lines |= {
                "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                "super.users": "User:ANONYMOUS",
            }
        return "".join(f"{key}={value}\n" for key, value in lines.items())

    def format_arguments(self) -> list[str]:
        """Return what makes the storage know the users; no password can be read from it."""
        arguments = []
        for name, password in (self.scram_users or {}).items():
            salt = os.urandom(16)
            salted = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _ITERATIONS)
            secret = ",".join(
                (
                    f"name={name}",
                    f"iterations={_ITERATIONS}",
                    f'salt="{base64.b64encode(salt).decode()}"',
                    f'saltedpassword="{base64.b64encode(salted).decode()}"',
                )
            )
            arguments += ["--add-scram", f"{SCRAM}=[{secret}]"]
        return arguments
