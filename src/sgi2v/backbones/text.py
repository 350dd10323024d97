"""Prompts: checked, encoded once on the host, and kept on disk by text and encoder."""

from __future__ import annotations

import dataclasses
import hashlib
import html
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

from jaxtyping import Float

from sgi2v.backbones.folder import read_json, weights_sha256
from sgi2v.backbones.weights import forms_in
from sgi2v.errors import FieldError
from sgi2v.files import cache_folder
from sgi2v.lazy import torch
from sgi2v.writing import writing

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

_PART: Final = "text_encoder"
_ENCODERS: Final[Mapping[str, str]] = MappingProxyType(
    {"umt5": "UMT5EncoderModel", "t5": "T5EncoderModel", "clip_text_model": "CLIPTextModel"}
)
"""Model types of encoders, as their configurations name them, with their classes in transformers."""
_MAX_ROWS_BYTES: Final = 2**27


@dataclass(frozen=True, kw_only=True)
class TextRules:
    """A model's way to make rows of a text."""

    length: int
    """Tokens that a text is filled up to; more are refused."""
    cleaned: bool
    """True where broken letters, entities and white space are mended first, as in training."""
    masked: bool
    """True where the filling is hidden from the encoder."""
    filling: Literal["zero", "encoded", "none"] = "zero"
    """Rows of the filling: zero, as the encoder makes them, or left off, for a network that they are hidden from."""


def has_encoder(folder: Path) -> bool:
    """True where the text encoder's weights are there; cached texts do without."""
    return bool(forms_in(folder, _PART))


def cleaned(text: str) -> str:
    """A text as the models' own pipelines clean it: letters mended by ftfy, entities resolved, white space single."""
    import ftfy

    mended = html.unescape(html.unescape(ftfy.fix_text(text)))
    return re.sub(r"\s+", " ", mended).strip()


def check_length(folder: Path, field: str, text: str, limit: int) -> None:
    """FieldError under ``field`` for a text of more tokens than the model takes, counted by its own tokenizer."""
    if len(text) < limit // 2:  # a token has a letter at least, and few more stand for none
        return
    count = _count(folder, text)
    if count is not None and count > limit:
        raise FieldError(field, f"has {count} tokens", f"this model takes {limit}; shorten it")


def _count(folder: Path, text: str) -> int | None:
    """Tokens of a text; None where the folder has no tokenizer, so that only cached texts can be used."""
    file = folder / "tokenizer" / "tokenizer.json"
    if file.is_file():
        from tokenizers import Tokenizer

        quick: Tokenizer = Tokenizer.from_file(str(file))
        quick.no_truncation()
        quick.no_padding()
        return len(quick.encode(text).ids)
    if not (folder / "tokenizer").is_dir():
        return None
    return len(_tokenizer(folder)(text)["input_ids"])


def _tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).strip().splitlines()[0]
        raise FieldError("backbone", f"{folder / 'tokenizer'} cannot be read ({reason})") from error
    return found


def cache_name(text: str, rules: TextRules, encoder: str, dtype: str) -> str:
    """Name of a text's rows: by words, rules, encoder and number format."""
    said = {"text": cleaned(text) if rules.cleaned else text, **dataclasses.asdict(rules)}
    whole = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
    return f"{whole[:32]}-{encoder}-{dtype}"


def texts_folder() -> Path:
    """Folder of encoded texts."""
    return cache_folder() / "texts"


def check_there(folder: Path, field: str, text: str, rules: TextRules) -> None:
    """FieldError for a text that nobody has encoded where there is no encoder; no weight is read."""
    if not has_encoder(folder) and not any(texts_folder().glob(f"{cache_name(text, rules, '*', '*')}.safetensors")):
        raise FieldError(
            field,
            f"{text[:60]!r} is not encoded yet, and {folder} has no text encoder",
            "encode it where the model is whole (sgi2v text --output FILE) and bring it here (sgi2v text --add FILE)",
        )


class Texts:
    """A model's texts as rows of its encoder, kept on disk; the encoder is read only for a text that is new."""

    def __init__(self, folder: Path, rules: TextRules, dtype: torch.dtype) -> None:
        self._folder, self._rules, self._dtype = folder, rules, dtype
        self._encoder = weights_sha256(folder, [_PART])[:16] if has_encoder(folder) else "*"

    def rows(self, texts: Sequence[str]) -> list[Float[torch.Tensor, "w d"]]:
        """Each text's rows on the host, filled up as the model's rules say; FieldError where one cannot be had."""
        found = {text: self._kept(text) for text in dict.fromkeys(texts)}
        new = [text for text, rows in found.items() if rows is None]
        if new:
            check_there(self._folder, "prompt", new[0], self._rules)
        for text, made in zip(new, self._encoded(new) if new else (), strict=True):
            found[text] = made
            with suppress(ValueError, OSError):  # a full disk costs the next run some time, and this one nothing
                _keep(self._name(text), made)
        return [self._filled(rows) for text in texts if (rows := found[text]) is not None]

    def export(self, texts: Sequence[str], file: Path) -> None:
        """Writes the texts' rows into one file, to be brought to another machine by :func:`add`."""
        from safetensors.torch import save_file

        self.rows(texts)
        kept = {self._name(text): rows for text in texts if (rows := self._kept(text)) is not None}
        with writing(file) as temporary:
            save_file(kept, temporary)

    def _name(self, text: str) -> str:
        return cache_name(text, self._rules, self._encoder, str(self._dtype).removeprefix("torch."))

    def _kept(self, text: str) -> Float[torch.Tensor, "v d"] | None:
        """A text's rows as kept: of this encoder and format, or where there is no encoder of any one."""
        same = sorted(texts_folder().glob(f"{self._name(text)}.safetensors"))
        if not same and self._encoder == "*":
            same = sorted(texts_folder().glob(f"{cache_name(text, self._rules, '*', '*')}.safetensors"))
        if len({file.name.split("-")[1] for file in same}) > 1:
            raise FieldError(
                "prompt",
                f"{text[:60]!r} was encoded by {len(same)} encoders, and {self._folder} has none to tell which is its",
                f"delete the others from {texts_folder()}",
            )
        rows = _read(same[0]).get("rows") if same else None
        return None if rows is None else rows.to(self._dtype)

    def _filled(self, rows: Float[torch.Tensor, "v d"]) -> Float[torch.Tensor, "w d"]:
        if self._rules.filling != "zero":
            return rows
        filled = rows.new_zeros(self._rules.length, rows.shape[1])
        filled[: len(rows)] = rows
        return filled

    def _encoded(self, texts: Sequence[str]) -> list[Float[torch.Tensor, "v d"]]:
        """Rows by the encoder itself, on the host: it is larger than many a card, and runs once for a text."""
        tokenizer, encoder = _tokenizer(self._folder), self._opened()
        found = []
        with torch.no_grad():
            for text in texts:
                tokens = tokenizer(
                    [cleaned(text) if self._rules.cleaned else text],
                    padding="max_length",
                    max_length=self._rules.length,
                    truncation=True,
                    add_special_tokens=True,
                    return_tensors="pt",
                )
                ids, mask = tokens["input_ids"], tokens["attention_mask"]
                rows = encoder(ids, mask if self._rules.masked else None).last_hidden_state[0]
                count = len(rows) if self._rules.filling == "encoded" else int(mask.sum())
                found.append(rows[:count].to(self._dtype).contiguous())
        return found

    def _opened(self) -> torch.nn.Module:
        import transformers

        from sgi2v.backbones.loading import network

        folder = self._folder / _PART
        kind = read_json(folder / "config.json").get("model_type")
        if kind not in _ENCODERS:
            raise FieldError(
                "backbone", f"{folder}/config.json: model_type must be one of {', '.join(_ENCODERS)}, got {kind!r}"
            )
        return network(getattr(transformers, _ENCODERS[str(kind)]), folder, self._dtype)


def _read(file: Path) -> Mapping[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if file.stat().st_size > _MAX_ROWS_BYTES:
            raise ValueError("larger than 128 MiB")
        return load_file(file)
    except (OSError, ValueError, SafetensorError) as error:
        raise FieldError("prompt", f"{file} cannot be read ({error})", "delete it") from None


def add(file: Path) -> int:
    """Takes the texts of an exported file into the cache and returns how many; FieldError for another file."""
    kept = _read(file)
    for name, rows in kept.items():
        if not re.fullmatch(r"[0-9a-f]{32}-[0-9a-f]{16}-(float32|float16|bfloat16)", name) or rows.ndim != 2:
            raise FieldError("add", f"{file} is no file of encoded texts", "make one by sgi2v text … --output FILE")
    for name, rows in kept.items():
        _keep(name, rows)
    return len(kept)


def _keep(name: str, rows: torch.Tensor) -> None:
    from safetensors.torch import save_file

    with writing(texts_folder() / f"{name}.safetensors") as temporary:
        save_file({"rows": rows}, temporary)
