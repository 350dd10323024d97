"""Signatories: this machine's own certificate, made once in the person's configuration, or the person's own.

In the folder of credentials lie ``own/`` (root.pem, chain.pem, key.pem), ``former/`` with roots of before, and
``choice.json``, if the person has chosen anything else than the own ones.
"""

from __future__ import annotations

import datetime
import json
import os
import shutil
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from sgi2v.errors import FieldError
from sgi2v.files import config_folder
from sgi2v.writing import reason, writing

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

Algorithm = Literal["es256", "es384", "es512", "ps256", "ps384", "ps512", "ed25519"]
"""Signatures that C2PA knows: ECDSA as the two numbers one behind the other, RSA-PSS, Ed25519."""
OWN: Final = "sgi2v on this machine"
"""Organisation in the certificates that are made here: it names no person and no machine."""
_DAYS: Final = 3650
_MAX_BYTES: Final = 2**20
_PRIVATE_FILE: Final = 0o600
_PRIVATE_FOLDER: Final = 0o700


@dataclass(frozen=True, kw_only=True)
class Signatory:
    """Certificates and what signs for them.

    A key that must not leave its place (a hardware token, a signing service) is given as a function.
    """

    certificates: str
    """PEM: the signing certificate first, then those that vouch for it."""
    algorithm: Algorithm
    """Signature that the key makes."""
    key: str | Callable[[bytes], bytes] = field(repr=False)
    """The private key as PEM, or a function from the bytes to be signed to their raw signature."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The person's choice of a signatory."""

    kind: Literal["own", "files", "none"] = "own"
    certificate: Path | None = None
    key: Path | None = None


def credentials_folder() -> Path:
    """The folder of credentials in the person's configuration."""
    return config_folder() / "credentials"


def signatory() -> Signatory | None:
    """Whoever signs on this machine, the own certificate made if it is not there; None where nobody shall.

    Raises: FieldError naming a file that is missing or unfit, OSError where the folder cannot be written.
    """
    choice = chosen()
    if choice.kind == "none":
        return None
    if choice.certificate is not None and choice.key is not None:
        return signatory_of(choice.certificate, choice.key)
    folder = made()
    return signatory_of(folder / "chain.pem", folder / "key.pem")


def made(*, anew: bool = False) -> Path:
    """The folder of this machine's own root, certificate and key, made if it is not there.

    Whole or not at all, and once, however many processes ask at the same time. ``anew`` makes others; the root of
    before stays known. The root's own key is thrown away: nothing else can be signed in its name.
    Raises: OSError.
    """
    folder = credentials_folder()
    own = folder / "own"
    if own.is_dir() and not anew:
        return own
    folder.mkdir(parents=True, exist_ok=True, mode=_PRIVATE_FOLDER)
    fresh = folder / f".{uuid.uuid4().hex}"
    try:
        fresh.mkdir(mode=_PRIVATE_FOLDER)
        for name, data in _new().items():
            descriptor = os.open(fresh / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE_FILE)
            with open(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        if anew and own.is_dir():
            (folder / "former").mkdir(exist_ok=True, mode=_PRIVATE_FOLDER)
            shutil.copyfile(own / "root.pem", folder / "former" / f"{uuid.uuid4().hex}.pem")
            own.rename(old := folder / f".{uuid.uuid4().hex}")
            shutil.rmtree(old, ignore_errors=True)
        with suppress(FileExistsError, OSError):  # a folder that holds anything is not replaced: another was first
            fresh.rename(own)
        if not own.is_dir():
            raise OSError(f"{own} could not be made")
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return own


def known_roots() -> str:
    """PEM of the roots that were made on this machine, one behind the other; empty where there are none."""
    folder = credentials_folder()
    files = [folder / "own" / "root.pem", *sorted((folder / "former").glob("*.pem"))]
    found = []
    for file in files:
        with suppress(OSError):
            found.append(file.read_text(encoding="ascii"))
    return "".join(found)


def chosen() -> Choice:
    """The person's choice; the own ones where none was made. FieldError for a file that is no choice."""
    file = credentials_folder() / "choice.json"
    try:
        if not file.is_file():
            return Choice()
        said = json.loads(file.read_text(encoding="utf-8"))
        if said["kind"] in ("own", "none"):
            return Choice(kind=said["kind"])
        return Choice(kind="files", certificate=Path(said["certificate"]), key=Path(said["key"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FieldError("credentials", f"{file} is damaged", "say sgi2v credentials use again") from error


def choose(choice: Choice) -> Path:
    """Keep a choice; returns its file. Files of the person's own are named, not copied: there is one key, not two.

    Raises: FieldError for a certificate or key that cannot sign (:func:`signatory_of`), or where nothing is written.
    """
    said: dict[str, str] = {"kind": choice.kind}
    if choice.kind == "files":
        if choice.certificate is None or choice.key is None:
            raise FieldError("credentials", "a certificate needs its key, and a key its certificate", "give both")
        signatory_of(choice.certificate, choice.key)
        said |= {"certificate": str(choice.certificate.resolve()), "key": str(choice.key.resolve())}
    file = credentials_folder() / "choice.json"
    with writing(file) as temporary:
        temporary.touch(mode=_PRIVATE_FILE)
        temporary.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    return file


def signatory_of(certificate: Path, key: Path) -> Signatory:
    """The signatory of two PEM files. FieldError where they are unreadable, no pair, protected, or outdated."""
    chain, secret = _read(certificate, "certificate"), _read(key, "key")
    first = read_certificates(chain, str(certificate))[0]
    private = _private(secret, str(key))
    if _public(private.public_key()) != _public(first.public_key()):
        raise FieldError(
            "credentials.key", f"{key} is not the key of {certificate}", "give the two that belong together"
        )
    now = datetime.datetime.now(datetime.UTC)
    if not first.not_valid_before_utc <= now <= first.not_valid_after_utc:
        raise FieldError(
            "credentials.certificate",
            f"it is valid from {first.not_valid_before_utc:%Y-%m-%d} to {first.not_valid_after_utc:%Y-%m-%d} only",
            "make another with sgi2v credentials init --anew, or use one of yours",
        )
    return Signatory(certificates=chain, algorithm=_algorithm(private), key=secret)


def read_certificates(chain: str, place: str) -> list[x509.Certificate]:
    """The certificates of a PEM text; FieldError naming its place for none."""
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(chain.encode())
    except ValueError as error:
        raise FieldError("credentials.certificate", f"{place} holds no certificate", "give one as PEM") from error


def _read(file: Path, name: str) -> str:
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise FieldError(f"credentials.{name}", f"{file} is larger than {_MAX_BYTES >> 20} MiB")
        return file.read_text(encoding="ascii")
    except OSError as error:
        raise FieldError(f"credentials.{name}", f"{file} cannot be read ({reason(error)})", "check its name") from error
    except ValueError as error:
        raise FieldError(f"credentials.{name}", f"{file} is not PEM", "give a text file of this kind") from error


def _private(secret: str, place: str) -> PrivateKeyTypes:
    from cryptography.hazmat.primitives import serialization

    try:
        return serialization.load_pem_private_key(secret.encode(), password=None)
    except TypeError as error:
        raise FieldError(
            "credentials.key",
            f"{place} is protected by a password",
            "give one without, or sign from Python by a function (docs/provenance.md)",
        ) from error
    except Exception as error:  # the library has one exception for each way of being no key
        raise FieldError("credentials.key", f"{place} holds no private key", "give one as PEM, in PKCS 8") from error


def _public(key: Any) -> bytes:
    from cryptography.hazmat.primitives import serialization

    encoding, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    return bytes(key.public_bytes(encoding, form))


def _algorithm(key: PrivateKeyTypes) -> Algorithm:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in ("secp256r1", "secp384r1", "secp521r1"):
        by_curve: dict[str, Algorithm] = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
        return by_curve[key.curve.name]
    if isinstance(key, rsa.RSAPrivateKey):
        return "ps256"
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    raise FieldError("credentials.key", "of a kind that C2PA does not know", "use P-256, P-384, P-521, RSA or Ed25519")


def _new() -> dict[str, bytes]:
    """A root, a certificate signed by it, and this one's key, as C2PA wants them (its specification, section 14.5).

    A signer that vouches for itself is refused: the certificate needs an authority's key id, its use for signing, an
    extended use, and an organisation.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    mark = uuid.uuid4().hex[:12]  # two roots of one name, with different keys, confuse validators

    def named(what: str) -> x509.Name:
        parts = {NameOID.ORGANIZATION_NAME: OWN, NameOID.COMMON_NAME: f"{what} {mark}"}
        return x509.Name([x509.NameAttribute(oid, text) for oid, text in parts.items()])

    def begun(what: str, public: ec.EllipticCurvePublicKey, days: int) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(named(what))
            .issuer_name(named("root"))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))  # clocks differ
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        )

    def usage(*, signs: bool) -> x509.KeyUsage:
        return x509.KeyUsage(
            digital_signature=signs,
            key_cert_sign=not signs,
            crl_sign=not signs,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )

    root = (
        begun("root", root_key.public_key(), _DAYS + 1)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage(signs=False), critical=True)
        .sign(root_key, hashes.SHA256())
    )
    entity = (
        begun("signer", key.public_key(), _DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage(signs=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False)
        .sign(root_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    return {
        "root.pem": root.public_bytes(pem),
        "chain.pem": entity.public_bytes(pem) + root.public_bytes(pem),
        "key.pem": key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    }
