"""Content credentials (C2PA): a signed statement in a clip's file of how it was made, and what is read from one."""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from PIL import Image

from sgi2v.errors import FieldError
from sgi2v.provenance.identity import Signatory, known_roots, signatory
from sgi2v.records import Json

MEDIA: Final[Mapping[str, str]] = MappingProxyType({".mp4": "video/mp4", ".gif": "image/gif", ".png": "image/png"})
"""Kinds of files that are signed, by their names' ends."""
LABEL: Final = "org.sgi2v.run"
"""Label of the assertion with the model and the method."""
PICTURE: Final = "photograph"
"""Title of the ingredient that the clip began from."""
_SOURCE: Final = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
# Nothing in a file that comes from anybody leads anywhere: no manifest, no list and no answer is fetched.
_VERIFY: Final[Mapping[str, bool]] = MappingProxyType({"remote_manifest_fetch": False, "ocsp_fetch": False})
_UNREADABLE: Final = "unreadable"  # beside C2PA's own codes
_NEEDS: Final = (
    "give a certificate that an authority signed, with its key id, digitalSignature, an extended use such as "
    "emailProtection, and an organisation (docs/provenance.md)"
)


class ProvenanceWarning(UserWarning):
    """A clip was written without something that would tell where it is from."""


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """Statements of a file's credentials, and how far they hold."""

    state: str
    """valid, changed (the file is not what was signed, or damaged), or broken (they do not hold for another reason)."""
    signer: str
    """Organisation in the signing certificate, as it says itself; empty where none is read."""
    authority: str
    """trusted (by the roots given), own (made on this machine), or unknown."""
    made_by: str
    """Program that signed, with its version."""
    is_generated: bool
    """True where the file says that a trained model made it."""
    run: Json
    """Model, method and key of the run, as our own credentials say them; empty for others."""
    failures: tuple[str, ...]
    """C2PA's codes for what does not hold."""


def sign(paths: Sequence[Path], run: Json | None, watermark: str | None, by: Signatory | None = None) -> bool:
    """Put credentials into files that were just written; True if all have them now.

    A file is replaced when the signed one is whole. After any failure it stays as it is, the rest too, and there is one
    warning: a clip took minutes and is not lost for a signature. `by` signs instead of whoever the person has chosen.
    """
    try:
        by = by or signatory()
        if by is None:
            return False
        statement = manifest(run, watermark)
        for path in paths:
            _sign_in_place(path, statement, by)
        return True
    except Exception as error:  # also whatever an external signer raises
        lines = [line for line in str(error).splitlines() if line.strip()]
        why = lines[0] if lines else type(error).__name__
        warnings.warn(
            f"written without content credentials: {why}; see sgi2v credentials show", ProvenanceWarning, stacklevel=3
        )
        return False


def _sign_in_place(path: Path, statement: Json, by: Signatory) -> None:
    signed = path.with_name(f"{path.stem}-signed{path.suffix}")
    try:
        _sign(path, signed, statement, by)
        signed.replace(path)
    finally:
        with suppress(OSError):
            signed.unlink(missing_ok=True)


def manifest(run: Json | None, watermark: str | None) -> Json:
    """The statement about a clip whose file carries this record: no name, no path, no picture, no place.

    The picture is named by the SHA-256 of its mode, size and pixels, as in a run's key (docs/records.md).
    """
    program = {"name": "sgi2v", "version": version("sgi2v")}
    action: Json = {"action": "c2pa.created", "digitalSourceType": _SOURCE, "softwareAgent": program}
    said: Json = {"watermark": watermark} if watermark else {}
    ingredients = []
    if run is not None:
        backbone, controller = run.get("backbone"), run.get("controller")
        if isinstance(backbone, Mapping):
            said |= {"model": str(backbone.get("name")), "weights_sha256": str(backbone.get("weights_sha256"))}
        if isinstance(controller, Mapping):
            said["method"] = str(controller.get("name"))
        said["record_sha256"] = record_hash(run)
        digest = _picture_hash(run)
        if digest is not None:
            ingredients.append(
                {
                    "title": PICTURE,
                    "format": "image/png",
                    "relationship": "inputTo",
                    "label": PICTURE,
                    "instance_id": f"sha256:{digest}",
                }
            )
            action["parameters"] = {"ingredientIds": [PICTURE]}
    assertions: list[Json] = [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}]
    if said:
        assertions.append({"label": LABEL, "data": said})
    return {"claim_generator_info": [program], "assertions": assertions, "ingredients": ingredients}


def record_hash(run: Json) -> str:
    """SHA-256 of a record as JSON with sorted keys: PNG frames do not hold the record that lies beside them."""
    return hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()


def read(path: Path, media: str, trusted: str = "") -> Credentials | None:
    """The credentials in a file; None where it has none.

    media: the file's kind, as ``video/mp4``. trusted: PEM of the roots whose word counts besides this machine's own.
    Raises: FieldError where C2PA's library is not installed.
    """
    own = known_roots()
    found = _validated(path, media, trusted) if trusted else None
    authority = "trusted"
    if found is None or found[0] != "Trusted":
        found = _validated(path, media, own)
        authority = "own" if found is not None and found[0] == "Trusted" else "unknown"
    if found is None:
        return None
    state, store = found
    active = store.get("manifests", {}).get(store.get("active_manifest"), {})
    results = store.get("validation_results", {}).get("activeManifest", {})
    failures = tuple(
        sorted({str(one.get("code")) for one in results.get("failure", [])} - {"signingCredential.untrusted"})
    )
    assertions = {one.get("label"): one.get("data", {}) for one in active.get("assertions", [])}
    actions = assertions.get("c2pa.actions.v2", assertions.get("c2pa.actions", {})).get("actions", [])
    program = (active.get("claim_generator_info") or [{}])[0]
    is_sound = state in ("Valid", "Trusted") and not failures
    return Credentials(
        state="valid" if is_sound else "changed" if _is_change(failures) else "broken",
        signer=str(active.get("signature_info", {}).get("issuer") or ""),
        authority=authority if is_sound else "unknown",
        made_by=" ".join(str(program[name]) for name in ("name", "version") if program.get(name)),
        is_generated=any(one.get("digitalSourceType") == _SOURCE for one in actions),
        run=dict(assertions.get(LABEL, {})),
        failures=failures,
    )


def _is_change(failures: tuple[str, ...]) -> bool:
    """True if file or statement is not what was signed, by C2PA's codes (its specification, section 15)."""
    words = ("Hash.", "hashedURI.", "mismatch", "malformed", "claimSignature", "missing", "multiple", _UNREADABLE)
    return any(word in failure for failure in failures for word in words)


def _validated(path: Path, media: str, roots: str) -> tuple[str, Json] | None:
    """C2PA's verdict and what it has read, with these roots trusted; None for a file without credentials."""
    try:
        import c2pa
    except ModuleNotFoundError:
        raise FieldError("credentials", "c2pa-python is not installed", "pip install c2pa-python") from None

    settings: dict[str, Any] = {"verify": dict(_VERIFY)}
    if roots:
        settings["trust"] = {"user_anchors": roots}
    try:
        with (
            c2pa.Context(c2pa.Settings.from_dict(settings)) as context,
            path.open("rb") as file,
            c2pa.Reader(media, file, context=context) as reader,
        ):
            return str(reader.get_validation_state()), json.loads(reader.json())
    except c2pa.C2paError as error:
        if isinstance(error, c2pa.C2paError.ManifestNotFound):
            return None
        # What cannot even be read as C2PA's containers.
        failure = {"code": _UNREADABLE}
        return "Invalid", {"validation_results": {"activeManifest": {"failure": [failure]}}}


def _sign(source: Path, target: Path, statement: Json, by: Signatory) -> None:
    import c2pa

    settings = c2pa.Settings.from_dict({"builder": {"thumbnail": {"enabled": False}}, "verify": dict(_VERIFY)})
    with (
        c2pa.Context(settings) as context,
        _signer(by) as signer,
        c2pa.Builder(statement, context) as builder,
        source.open("rb") as before,
        target.open("w+b") as after,
    ):
        builder.sign(signer, MEDIA[source.suffix.lower()], before, after)
        after.flush()


def _signer(by: Signatory) -> Any:
    import c2pa

    if isinstance(by.key, str):
        info = c2pa.C2paSignerInfo(by.algorithm.encode(), by.certificates.encode(), by.key.encode(), None)
        return c2pa.Signer.from_info(info)
    callback: Callable[[bytes], bytes] = by.key
    return c2pa.Signer.from_callback(callback, c2pa.C2paSigningAlg[by.algorithm.upper()], by.certificates)


def _picture_hash(run: Json) -> str | None:
    """SHA-256 of the pixels of a record's picture, as in the run's key; None where none can be read."""
    from sgi2v.images import data_bytes

    scene = run.get("scene")
    picture = scene.get("image") if isinstance(scene, Mapping) else None
    if not isinstance(picture, str) or not picture.startswith("data:"):
        return None
    try:
        with Image.open(io.BytesIO(data_bytes("run.scene.image", picture))) as image:
            return hashlib.sha256(f"{image.mode} {image.size} ".encode() + image.tobytes()).hexdigest()
    except (ValueError, OSError, Image.DecompressionBombError):
        return None


def check(by: Signatory) -> None:
    """Sign a small picture and read it again. FieldError where C2PA's library refuses signer or signature."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "picture.png"
        Image.new("RGB", (8, 8)).save(file)
        try:
            _sign_in_place(file, manifest(None, None), by)
            found = read(file, MEDIA[file.suffix])
        except Exception as error:  # also whatever an external signer raises
            raise FieldError("credentials", f"cannot sign: {error}", _NEEDS) from error
    if found is None or found.state != "valid":
        raise FieldError("credentials", f"refused by C2PA ({', '.join(found.failures if found else ())})", _NEEDS)
