"""How Faust proves who we are: the [kafka] settings in Faust's own terms."""

from typing import Any

import faust

from alpha_pulse.contracts.config import KafkaConfig
from alpha_pulse.contracts.kafka.connection import client_arguments


def faust_credentials(kafka: KafkaConfig) -> Any:
    """Return what Faust's setting `broker_credentials` takes; None without TLS and password.

    Raises: ConfigError as `client_arguments` does.
    """
    arguments = client_arguments(kafka, "")
    if kafka.security_protocol == "PLAINTEXT":
        return None
    if kafka.security_protocol == "SSL":
        return faust.SSLCredentials(arguments["ssl_context"])
    return faust.SASLCredentials(
        username=arguments["sasl_plain_username"],
        password=arguments["sasl_plain_password"],
        mechanism=arguments["sasl_mechanism"],
        ssl_context=arguments.get("ssl_context"),
    )
