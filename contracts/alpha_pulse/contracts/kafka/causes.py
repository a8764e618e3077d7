"""Why Kafka can't be used, in words: aiokafka says only "Unable to bootstrap" of every cause."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator

from aiokafka import errors
from aiokafka.conn import create_conn
from aiokafka.protocol.metadata import MetadataRequest

from alpha_pulse.contracts.config import KafkaConfig
from alpha_pulse.contracts.errors import KafkaError
from alpha_pulse.contracts.kafka.connection import client_arguments

PROBE_TIMEOUT_MS = 4_000

# Errors that another attempt can't heal: something has to be granted or changed first.
_NOT_PERMITTED: dict[type[BaseException], str] = {
    errors.TopicAuthorizationFailedError: "grant this user the operation on the topic",
    errors.GroupAuthorizationFailedError: "grant this user READ on the consumer group",
    errors.ClusterAuthorizationFailedError: "grant this user WRITE on the topics it publishes to",
    errors.TransactionalIdAuthorizationFailed: "grant this user WRITE on the transactional id",
}


@contextlib.asynccontextmanager
async def connecting(kafka: KafkaConfig) -> AsyncIterator[None]:
    """Turn what a client raises while it connects into a KafkaError that names the cause.

    Wrong password, unknown certificate authority, TLS where none is spoken and the like cost one
    more connection, which is refused in the same way but says why.
    """
    try:
        yield
    except (errors.KafkaError, OSError, TimeoutError) as error:
        cause = await _cause(kafka) if isinstance(error, errors.KafkaConnectionError) else error
        raise KafkaError(
            f"expected Kafka at {kafka.bootstrap}, found {explain(kafka, cause or error)}"
        ) from error


def explain(kafka: KafkaConfig, error: BaseException) -> str:
    """Return what an error of Kafka's client means and what to do about it."""
    text = " ".join(str(error).split()) or type(error).__name__
    protocol = kafka.security_protocol
    for error_type, advice in _NOT_PERMITTED.items():
        if isinstance(error, error_type):
            return f"{type(error).__name__}: {text}; {advice} (docs/security.md)"
    match error:
        case errors.SaslAuthenticationFailed() | errors.AuthenticationFailedError():
            return (
                f"the user {kafka.sasl_username!r} or its password refused ({text}); check [kafka] "
                f"sasl_username, sasl_password and sasl_mechanism ({kafka.sasl_mechanism})"
            )
        case errors.UnsupportedSaslMechanismError() | errors.IllegalSaslStateError():
            return f"{kafka.sasl_mechanism} refused ({text}); check [kafka] sasl_mechanism"
        case ssl.SSLCertVerificationError():
            return (
                f"a certificate that can't be verified ({error.verify_message}); name its "
                "authority in [kafka] tls_ca_file, and use the host's name that it is made out to"
            )
        case ssl.SSLError():
            return (
                f"no TLS session ({text}); does that port speak TLS, and is the client certificate "
                f"the one it asks for? [kafka] security_protocol is {protocol!r}"
            )
        case ConnectionRefusedError():
            return f"nothing that listens ({text}); is it running there?"
    if protocol.endswith("SSL"):
        return (
            f"{type(error).__name__}: {text}; is it running there, does that port speak TLS, and "
            "does it ask for a client certificate ([kafka] tls_certificate_file)?"
        )
    return (
        f"{type(error).__name__}: {text}; is it running there, and does that port expect TLS or a "
        f"password? [kafka] security_protocol is {protocol!r}"
    )


async def _cause(kafka: KafkaConfig) -> BaseException | None:
    """Connect once more to the first address that answers at all; return how it was refused."""
    arguments = client_arguments(kafka, "alpha-pulse-probe")
    addresses = arguments.pop("bootstrap_servers")
    arguments["request_timeout_ms"] = min(kafka.request_timeout_ms, PROBE_TIMEOUT_MS)
    found: BaseException | None = None
    for address in addresses:
        host, _, port = address.strip().rpartition(":")
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_MS / 1000):
                connection = await create_conn(host.strip("[]"), int(port), **arguments)
                try:
                    await connection.send(MetadataRequest([]))
                finally:
                    connection.close()
        except (errors.KafkaError, OSError, TimeoutError, ValueError) as error:
            # A refusal says more than an address where nothing listens.
            if found is None or isinstance(found, ConnectionRefusedError | TimeoutError):
                found = error
            # What the connection itself broke of lies beneath.
            if isinstance(error.__cause__, ssl.SSLError):
                found = error.__cause__
    return found
