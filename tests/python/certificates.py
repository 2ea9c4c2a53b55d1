"""Makes chains of certificates, good and bad, each with what a verifier must say of it.

    python certificates.py

Prints a JSON list: name, key (of the signer, PEM), chain (base64 of DER, signer first), anchors (PEM), and the word expected.
"""

import base64
import datetime
import json
import sys

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID as Purpose
from cryptography.x509.oid import NameOID, ObjectIdentifier

NOW = datetime.datetime.now(datetime.timezone.utc)
DAY = datetime.timedelta(days=1)
CASES = []


def key(curve=ec.SECP256R1()):
    return ec.generate_private_key(curve)


def usage(sign=False, certify=False):
    return x509.KeyUsage(sign, False, False, False, False, certify, False, False, False)


class Party:
    """A key with a certificate, by an issuer or by itself."""

    def __init__(self, name, issuer=None, key=None, *, ca=False, length=None, uses=None, purposes=(), sans=(), start=-1, end=1,
                 extra=(), basic=True, hash=None, serial=None):
        self.key = key or globals()["key"]()
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        signer = issuer or self
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(signer.name)
            .public_key(self.key.public_key())
            .serial_number(serial or x509.random_serial_number())
            .not_valid_before(NOW + start * DAY)
            .not_valid_after(NOW + end * DAY)
        )
        if basic:
            builder = builder.add_extension(x509.BasicConstraints(ca, length), critical=True)
        if uses is not None:
            builder = builder.add_extension(uses, critical=True)
        if purposes:
            builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        if sans:
            builder = builder.add_extension(x509.SubjectAlternativeName(sans), critical=False)
        for extension, critical in extra:
            builder = builder.add_extension(extension, critical=critical)
        if isinstance(signer.key, ed25519.Ed25519PrivateKey):
            hash = None
        else:
            hash = hash or hashes.SHA256()
        self.certificate = builder.sign(signer.key, hash)

    def der(self):
        return self.certificate.public_bytes(serialization.Encoding.DER)

    def pem(self):
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()


def authority(name, issuer=None, **options):
    return Party(name, issuer, ca=True, uses=options.pop("uses", usage(certify=True)), **options)


def signer(issuer, name="Release", **options):
    options.setdefault("uses", usage(sign=True))
    options.setdefault("purposes", [Purpose.CODE_SIGNING])
    return Party(name, issuer, **options)


def case(name, expected, leaf, others, anchors, names=(), raw=None):
    private = leaf.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    chain = raw if raw is not None else [party.der() for party in [leaf, *others]]
    CASES.append({
        "name": name,
        "expected": expected,
        "key": private.decode(),
        "chain": [base64.b64encode(der).decode() for der in chain],
        "anchors": "".join(party.pem() for party in anchors),
        "names": list(names),
    })


root = authority("Root")
middle = authority("Middle", root, length=0)
good = signer(middle, sans=[x509.RFC822Name("release@acme.example"), x509.DNSName("acme.example")])
case("three", "ok", good, [middle], [root])
case("two", "ok", signer(root), [], [root])
case("the anchor too", "ok", good, [middle, root], [root])
case("the middle as anchor", "ok", good, [], [middle])
case("another anchor first", "ok", good, [middle], [authority("Other"), root])
case("unordered, and one too many", "ok", good, [authority("Stray"), middle], [root])
for curve in [ec.SECP384R1(), ec.SECP521R1()]:
    top = authority("Root", key=key(curve), hash=hashes.SHA384())
    case(f"of {curve.name}", "ok", signer(top, key=key(curve), hash=hashes.SHA512()), [], [top])
edwards = authority("Root", key=ed25519.Ed25519PrivateKey.generate())
case("of Ed25519", "ok", signer(edwards, key=ed25519.Ed25519PrivateKey.generate()), [], [edwards])
case("an authority that signs models", "ok", signer(middle, name="Middle", ca=True), [middle], [root])
case("usage only", "ok", signer(root, purposes=()), [], [root])
case("purpose only", "ok", signer(root, uses=None), [], [root])
case("any purpose", "ok", signer(root, purposes=[Purpose.ANY_EXTENDED_KEY_USAGE]), [], [root])
pinned = Party("Self", ca=True, uses=usage(sign=True), purposes=[Purpose.CODE_SIGNING])
case("pinned", "ok", pinned, [], [pinned])
case("pinned, under an authority", "ok", good, [], [good])
case("named by e-mail", "ok", good, [middle], [root], ["release@acme.example"])
case("named by host", "ok", good, [middle], [root], ["nobody", "acme.example"])
case("named by its common name", "ok", signer(root, name="Acme Release"), [], [root], ["Acme Release"])
cross = authority("Middle", authority("Other root"), key=middle.key)
case("cross-signed by one that is not trusted", "ok", good, [cross, middle], [root])

case("expired", "certificate-expired", signer(middle, start=-3, end=-1), [middle], [root])
case("not yet valid", "certificate-not-yet-valid", signer(middle, start=1, end=2), [middle], [root])
old = authority("Middle", root, start=-3, end=-1)
case("expired authority", "certificate-expired", signer(old), [old], [root])
old_root = authority("Root", start=-3, end=-1)
case("expired anchor", "certificate-expired", signer(old_root), [], [old_root])
stale = Party("Self", ca=True, uses=usage(sign=True), start=-3, end=-1)
case("expired, pinned", "certificate-expired", stale, [], [stale])
case("for servers", "certificate-purpose", signer(middle, purposes=[Purpose.SERVER_AUTH]), [middle], [root])
case("not for signatures", "certificate-purpose", signer(middle, uses=usage(certify=True)), [middle], [root])
case("for nothing in particular", "certificate-purpose", signer(middle, uses=None, purposes=()), [middle], [root])
no_ca = Party("Middle", root, uses=usage(certify=True))
case("issued by a signer", "certificate-untrusted", signer(no_ca), [no_ca], [root])
no_basic = Party("Middle", root, uses=usage(certify=True), basic=False)
case("issued without constraints", "certificate-untrusted", signer(no_basic), [no_basic], [root])
no_sign = authority("Middle", root, uses=usage(sign=True))
case("issued without the usage", "certificate-untrusted", signer(no_sign), [no_sign], [root])
servers = authority("Middle", root, purposes=[Purpose.SERVER_AUTH])
case("issued by an authority for servers", "certificate-untrusted", signer(servers), [servers], [root])
below = authority("Below", middle)
case("path too long", "certificate-untrusted", signer(below), [below, middle], [root])
case("wrong anchor", "certificate-untrusted", good, [middle], [authority("Other")])
case("anchor of the same name", "certificate-untrusted", good, [middle], [authority("Root")])
case("missing intermediate", "certificate-untrusted", good, [], [root])
case("self-signed, not pinned", "certificate-untrusted", pinned, [], [root])
twin = Party("Self", ca=True, uses=usage(sign=True), purposes=[Purpose.CODE_SIGNING], key=pinned.key)
case("pinned, another certificate of the key", "certificate-untrusted", twin, [], [pinned])
case("signer last", "certificate-purpose", good, [], [root], raw=[middle.der(), good.der()])
limits = x509.NameConstraints([x509.DNSName("acme.example")], None)
narrow = authority("Middle", root, extra=[(limits, True)])
within, outside = ([x509.DNSName(f"{host}.example")] for host in ["models.acme", "models.other"])
case("within the name constraints", "ok", signer(narrow, sans=within), [narrow], [root])
case("outside of the name constraints", "certificate-untrusted", signer(narrow, sans=outside), [narrow], [root])
odd = x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), b"\x05\x00")
case("unknown and critical", "certificate-malformed", signer(root, extra=[(odd, True)]), [], [root])
case("unknown and not critical", "ok", signer(root, extra=[(odd, False)]), [], [root])
case("another name", "certificate-identity", good, [middle], [root], ["release@other.example"])
case("the start of a name", "certificate-identity", signer(root, name="Acme\0.evil"), [], [root], ["Acme"])
case("a common name beside others", "certificate-identity", good, [middle], [root], ["Release"])
large, small = (rsa.generate_private_key(65537, bits) for bits in [2048, 1024])
case("an RSA authority", "ok", signer(authority("Root", key=large)), [], [authority("Root", key=large)])
case("a weak RSA authority", "certificate-untrusted", signer(authority("Root", key=small)), [], [authority("Root", key=small)])
case("garbage", "certificate-malformed", good, [], [root], raw=[b"\x30\x03\x02\x01\x00"])
case("cut", "certificate-malformed", good, [], [root], raw=[good.der()[:-1], middle.der()])
case("extended", "certificate-malformed", good, [], [root], raw=[good.der() + b"\0", middle.der()])
case("none", "certificate-malformed", good, [], [root], raw=[])
links = [root]
for i in range(9):
    links.append(authority(f"Link {i}", links[-1]))
case("the longest path", "ok", signer(links[6]), links[6:0:-1], [root])
case("a path too long for anybody", "certificate-untrusted", signer(links[7]), links[7:0:-1], [root])
loop_a, loop_b = key(), key()
a = authority("A", key=loop_a)
b = authority("B", a, key=loop_b)
a = authority("A", b, key=loop_a)
case("a loop", "certificate-untrusted", signer(a), [a, b, a, b], [root])

json.dump(CASES, sys.stdout)
