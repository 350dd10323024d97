"""The command info: what is installed and found on this machine."""

import platform
from collections.abc import Iterator, Sequence
from importlib.metadata import version

from sgi2v.cli.common import parse
from sgi2v.cli.options import InfoOptions


def info(arguments: Sequence[str]) -> None:
    """Say what is here: versions, devices, memory, models."""
    parse(InfoOptions, "info", arguments)
    from sgi2v.device import choose_device, cpu_alone, describe_devices, free_memory, free_memory_of_host

    packages = ("sgi2v", "torch", "diffusers", "transformers", "av")
    print(f"versions   python {platform.python_version()}, " + ", ".join(f"{p} {version(p)}" for p in packages))
    for line in describe_devices():
        print(f"device     {line}")
    alone = cpu_alone()  # then nothing that is said needs torch, which takes seconds to import
    device = "cpu" if alone else str(choose_device())
    free = free_memory_of_host() if alone else free_memory(choose_device())
    print(f"memory     {'unknown' if free is None else f'{free / 2**30:.1f} GiB'} free on {device}")
    for name, state in _found_models():
        print(f"backbone   {name}: {state}")


def _found_models() -> Iterator[tuple[str, str]]:
    """Names of models and whether they are on this machine."""
    from huggingface_hub import try_to_load_from_cache

    from sgi2v.backbones.registry import BUNDLED, kinds, names, outline_of, settings_of

    try:
        recipes = outline_of(BUNDLED).settings.recipes
        yield BUNDLED, f"ready; recipes: {', '.join(recipes) or 'its own only'}"
    except ValueError as error:
        yield BUNDLED, str(error)
    yield "kinds", ", ".join(kind.kind for kind in kinds())
    for name, hub_id in names().items():
        here = isinstance(try_to_load_from_cache(hub_id, "model_index.json"), str)
        state = "downloaded" if here else "not downloaded; the first use fetches it"
        yield name, f"{hub_id}, {state}; recipes: {', '.join(settings_of(name).recipes) or 'its own only'}"
