"""Makes certificates with `cryptography`, for signatures that `model_signing` and we hold to one another.

    python oms_certificates.py DIRECTORY CURVE

CURVE is P-256, P-384 or P-521, of all keys. Writes `root.pem`, `intermediate.pem`, and for the key `leaf.key` the certificates
`leaf.pem`, `authority.pem` (which may issue as well), `expired.pem`, `tls.pem` (for servers alone) and `self.pem`
(self-signed), valid for a year unless it says otherwise; and `foreign.pem`, a root that has issued nothing.
"""

import datetime
import os
import sys
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

home, curve = Path(sys.argv[1]), {"P-256": ec.SECP256R1, "P-384": ec.SECP384R1, "P-521": ec.SECP521R1}[sys.argv[2]]
home.mkdir(exist_ok=True)
now = datetime.datetime.now(datetime.timezone.utc)
USAGES = ["digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"]
USAGES += ["key_cert_sign", "crl_sign", "encipher_only", "decipher_only"]


def make(name, subject, key, issuer, issuer_key, usage, authority, purpose=None, end=365):
    """Writes one certificate, and returns it. Its times are counted in days from now."""
    subject, issuer = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in (subject, issuer))
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=30))
        .not_valid_after(now + datetime.timedelta(days=end))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .add_extension(x509.KeyUsage(**{name: name == usage for name in USAGES}), critical=True)
    )
    if purpose:
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        address = x509.RFC822Name("ml@acme.example")
        builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
    certificate = builder.sign(issuer_key, hashes.SHA256())
    (home / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


root, intermediate, leaf, foreign = (ec.generate_private_key(curve()) for _ in range(4))
code, tls = ExtendedKeyUsageOID.CODE_SIGNING, ExtendedKeyUsageOID.SERVER_AUTH
make("root", "root", root, "root", root, "key_cert_sign", True)
make("foreign", "root", foreign, "root", foreign, "key_cert_sign", True)
make("intermediate", "intermediate", intermediate, "root", root, "key_cert_sign", True)
issued = [leaf, "intermediate", intermediate, "digital_signature"]
make("leaf", "leaf", *issued, False, code)
make("authority", "intermediate", *issued, True, code)
make("expired", "leaf", *issued, False, code, end=-1)
make("tls", "leaf", *issued, False, tls)
make("self", "self", leaf, "self", leaf, "digital_signature", True, code)
with open(os.open(home / "leaf.key", os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as file:
    form = serialization.PrivateFormat.PKCS8
    file.write(leaf.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
