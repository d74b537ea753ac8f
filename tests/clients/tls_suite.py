"""Checks TLS and mutual TLS. The facts contain two servers, `flight` (TLS) and `mutual` (mutual TLS), and the folder `certs`."""

import pathlib
import ssl
import socket

import adbc_driver_flightsql as driver
import adbc_driver_flightsql.dbapi as dbapi

from checks import check, equal, main, refused

OPTION = driver.DatabaseOptions


def pem(facts, name):
    """Returns the content of a file that make_certs.py has created."""
    return pathlib.Path(facts["certs"], name).read_text(encoding="utf-8")


def ask(facts, address, scheme="grpc+tls", **options):
    """Runs a query and returns its row."""
    options = {OPTION.AUTHORIZATION_HEADER.value: f"Bearer {facts['tokens']['acme']}", **options}
    with dbapi.connect(f"{scheme}://{address}", db_kwargs=options, autocommit=True) as connection:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            return cursor.fetchone()


def trusting(facts, name="authority.pem"):
    """Returns the options of a client that trusts one authority."""
    return {OPTION.TLS_ROOT_CERTS.value: pem(facts, name)}


def holding(facts, name):
    """Returns the options of a client that presents a certificate."""
    return {OPTION.MTLS_CERT_CHAIN.value: pem(facts, f"{name}.pem"), OPTION.MTLS_PRIVATE_KEY.value: pem(facts, f"{name}.key")}


@check
def a_client_that_trusts_the_authority_connects(facts):
    equal(ask(facts, facts["flight"], **trusting(facts)), (1,))


@check
def a_wrong_authority_is_refused(facts):
    refused(lambda: ask(facts, facts["flight"], **trusting(facts, "stranger.pem")), dbapi.Error, "certificate|x509|tls")


@check
def plain_text_is_refused(facts):
    refused(lambda: ask(facts, facts["flight"], scheme="grpc"), dbapi.Error)


@check
def versions_and_protocol(facts):
    host, port = facts["flight"].split(":")
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = ssl.create_default_context(cadata=pem(facts, "authority.pem"))
        context.minimum_version = context.maximum_version = version
        context.set_alpn_protocols(["h2", "http/1.1"])
        with socket.create_connection((host, int(port)), timeout=120) as plain:
            with context.wrap_socket(plain, server_hostname=host) as wrapped:
                equal(wrapped.selected_alpn_protocol(), "h2", version)
                equal(wrapped.version(), version.name.replace("_", "."), version)


@check
def a_known_client_connects(facts):
    equal(ask(facts, facts["mutual"], **trusting(facts), **holding(facts, "client")), (1,))


@check
def unknown_clients_are_refused(facts):
    refused(lambda: ask(facts, facts["mutual"], **trusting(facts)), dbapi.Error)
    refused(lambda: ask(facts, facts["mutual"], **trusting(facts), **holding(facts, "strange-client")), dbapi.Error)


if __name__ == "__main__":
    main()
