"""Creates certificates for one test: `make_certs.py folder` writes PEM files of two authorities, servers and clients."""

import datetime
import ipaddress
import pathlib
import sys

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = datetime.datetime.now(datetime.timezone.utc)


HERE = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]


def certificate(folder, name, issuer=None, usage=None, hosts=HERE):
    """Writes a key and a certificate, and returns both. `issuer` (key, certificate) signs it; an authority signs its own."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[1].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - datetime.timedelta(days=1))
        .not_valid_after(NOW + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if usage:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False).add_extension(
            x509.SubjectAlternativeName(hosts), critical=False
        )
    made = builder.sign(issuer[0] if issuer else key, hashes.SHA256())
    (folder / f"{name}.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / f"{name}.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return key, made


def main():
    """Writes a trusted and an untrusted authority, a server, a server for another host, and one client for each authority."""
    folder = pathlib.Path(sys.argv[1])
    authority = certificate(folder, "authority")
    stranger = certificate(folder, "stranger")
    certificate(folder, "server", authority, ExtendedKeyUsageOID.SERVER_AUTH)
    certificate(folder, "elsewhere", authority, ExtendedKeyUsageOID.SERVER_AUTH, [x509.DNSName("elsewhere.test")])
    certificate(folder, "client", authority, ExtendedKeyUsageOID.CLIENT_AUTH)
    certificate(folder, "strange-client", stranger, ExtendedKeyUsageOID.CLIENT_AUTH)


if __name__ == "__main__":
    main()
