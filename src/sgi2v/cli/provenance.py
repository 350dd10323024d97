"""Commands on where clips are from: verify, and credentials."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from sgi2v.cli.common import parse
from sgi2v.errors import FieldError


@dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """Say where clips or pictures are from: their credentials, the mark in their pixels, their record."""

    files: Positional[tuple[Path, ...]]
    """Clips or pictures of any kind that is read here, or folders of PNG frames."""
    json: bool = False
    """Print a JSON object for every file instead, one a line."""
    trust: Path | None = None
    """A PEM file of root certificates whose word counts as trusted."""


@dataclass(frozen=True, kw_only=True)
class InitOptions:
    """Make this machine's own authority and certificate, which the first clip does by itself otherwise."""

    anew: bool = False
    """Make others in place of those that are there; clips that those signed stay known here."""


@dataclass(frozen=True, kw_only=True)
class UseOptions:
    """Choose who signs clips: a certificate and key of yours, this machine's own, or nobody."""

    certificate: Path | None = None
    """A PEM file: your certificate, then those that vouch for it."""
    key: Path | None = None
    """A PEM file: its private key, without a password. It is read where it lies, not copied."""
    own: bool = False
    """Sign with what was made on this machine."""
    none: bool = False
    """Sign nothing."""


@dataclass(frozen=True, kw_only=True)
class ShowOptions:
    """Say who signs clips on this machine, and until when."""


def verify(arguments: Sequence[str]) -> None:
    """Say where clips are from: credentials, the mark in the pixels, the record."""
    options = parse(VerifyOptions, "verify", arguments)
    if not options.files:
        raise FieldError("files", "there are none", "name at least one: sgi2v verify clip.mp4")
    from sgi2v.provenance.verify import verify

    for file in options.files:
        found = verify(file, trusted=options.trust)
        if options.json:
            print(json.dumps(found.to_dict()))
            continue
        print(f"{file}{': changed since it was signed' if found.is_changed else ''}")
        for name, answer in found.answers():
            print(f"  {name:12} {answer}")


def credentials(arguments: Sequence[str]) -> None:
    """Choose who signs clips: init, use, show."""
    commands = {"init": _init, "use": _use, "show": _show}
    name, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if name in ("--help", "-h"):
        print("usage: sgi2v credentials {init,use,show} ...      each explains its options with --help")
        return
    if name not in commands:
        raise FieldError("credentials", f"{name!r} is not known", f"known are {', '.join(commands)}")
    commands[name](rest)


def _init(arguments: Sequence[str]) -> None:
    options = parse(InitOptions, "credentials init", arguments)
    from sgi2v.provenance.identity import made

    print(made(anew=options.anew))


def _use(arguments: Sequence[str]) -> None:
    options = parse(UseOptions, "credentials use", arguments)
    from sgi2v.provenance.credentials import check
    from sgi2v.provenance.identity import Choice, choose, signatory_of

    files = options.certificate is not None or options.key is not None
    if files + options.own + options.none != 1:
        raise FieldError("use", "say one thing", "--certificate FILE --key FILE, or --own, or --none")
    if options.certificate is not None and options.key is not None:
        check(signatory_of(options.certificate, options.key))
    kind: Literal["own", "none", "files"] = "own" if options.own else "none" if options.none else "files"
    print(choose(Choice(kind=kind, certificate=options.certificate, key=options.key)))


def _show(arguments: Sequence[str]) -> None:
    parse(ShowOptions, "credentials show", arguments)
    from sgi2v.provenance.credentials import check
    from sgi2v.provenance.identity import chosen, credentials_folder, read_certificates, signatory

    print(f"folder     {credentials_folder()}")
    print(f"chosen     {chosen().kind}")
    by = signatory()
    if by is None:
        return
    first = read_certificates(by.certificates, "the certificate")[0]
    print(f"signer     {first.subject.rfc4514_string()}")
    print(f"authority  {first.issuer.rfc4514_string()}")
    print(f"valid      {first.not_valid_before_utc:%Y-%m-%d} to {first.not_valid_after_utc:%Y-%m-%d}")
    check(by)
    print("signs      a picture was signed with it and found valid")
