"""How everything connects to Kafka: addresses, TLS, SASL, and what a consumer reads."""

import ssl
from typing import Any

from alpha_pulse.contracts.config import KafkaConfig
from alpha_pulse.contracts.errors import ConfigError

FETCH_BYTES_MAX = 2 * 2**20


def client_arguments(kafka: KafkaConfig, client_id: str) -> dict[str, Any]:
    """Return the connection arguments that aiokafka's producer, consumer and admin share.

    Args:
        kafka: addresses, TLS and SASL.
        client_id: the name of the client in the broker's logs.

    Raises:
        ConfigError: for PLAIN without TLS (the password would travel in clear), for TLS files that
            can't be read, and for SASL without a user name.
    """
    arguments: dict[str, Any] = {
        "bootstrap_servers": kafka.bootstrap.split(","),
        "client_id": client_id,
        "security_protocol": kafka.security_protocol,
        "request_timeout_ms": kafka.request_timeout_ms,
    }
    if kafka.security_protocol.startswith("SASL"):
        if kafka.sasl_mechanism == "PLAIN" and kafka.security_protocol != "SASL_SSL":
            raise ConfigError(
                "expected TLS under the SASL mechanism PLAIN, found SASL_PLAINTEXT; set [kafka] "
                "security_protocol = 'SASL_SSL' or use SCRAM-SHA-512"
            )
        if not kafka.sasl_username:
            raise ConfigError("expected [kafka] sasl_username with SASL, found none")
        arguments["sasl_mechanism"] = kafka.sasl_mechanism
        arguments["sasl_plain_username"] = kafka.sasl_username
        arguments["sasl_plain_password"] = kafka.sasl_password
    if kafka.security_protocol.endswith("SSL"):
        arguments["ssl_context"] = tls_context(kafka)
    return arguments


def consumer_arguments(
    kafka: KafkaConfig, client_id: str, *, fetch_bytes_max: int = FETCH_BYTES_MAX, **settings: Any
) -> dict[str, Any]:
    """Return the arguments of an aiokafka consumer that reads committed records, from the earliest.

    It commits no offset by itself.

    Args:
        kafka: addresses, TLS and SASL.
        client_id: the name of the client in the broker's logs.
        fetch_bytes_max: bytes of one partition in one fetch.
        settings: AIOKafkaConsumer's own, which replace the ones above.

    Raises:
        ConfigError: as `client_arguments` does.
    """
    return {
        **client_arguments(kafka, client_id),
        "enable_auto_commit": False,
        "auto_offset_reset": "earliest",
        "isolation_level": "read_committed",
        "max_partition_fetch_bytes": fetch_bytes_max,
        **settings,
    }


def tls_context(kafka: KafkaConfig) -> ssl.SSLContext:
    """Return the TLS context of the settings: server verified, client certificate when given."""
    try:
        context = ssl.create_default_context(cafile=kafka.tls_ca_file or None)
        if kafka.tls_certificate_file:
            context.load_cert_chain(kafka.tls_certificate_file, kafka.tls_key_file or None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"expected readable PEM files in [kafka] tls_ca_file, tls_certificate_file and "
            f"tls_key_file, found: {error}"
        ) from error
    return context
