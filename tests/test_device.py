"""Devices and number formats: what is chosen, and what is refused by name."""

import pytest
import torch

from sgi2v.device import (
    HostCopy,
    bfloat16_is_fast,
    choose_device,
    choose_dtype,
    describe_devices,
    flushed_denormals,
    free_memory,
)


def test_a_device_this_machine_lacks_is_refused() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match="device: 'toaster'"):
        choose_device("toaster")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device: 'cuda'"):
            choose_device("cuda")


def test_formats_follow_the_device_and_the_models_word() -> None:
    cpu = torch.device("cpu")
    assert choose_dtype(None, cpu) == torch.float32
    assert choose_dtype("float16", cpu) == torch.float16
    fast = bfloat16_is_fast()
    assert choose_dtype(None, cpu, bfloat16_on_cpu=True) == (torch.bfloat16 if fast else torch.float32)
    with pytest.raises(ValueError, match="dtype: unknown 'float8'"):
        choose_dtype("float8", cpu)


def test_denormals_are_flushed_within_and_nowhere_else() -> None:
    def product() -> float:
        return (torch.tensor([1e-30]) * 1e-9).item()

    assert product() > 0
    with flushed_denormals():
        assert product() == 0
        with flushed_denormals():
            pass
        assert product() == 0, "the inner one leaves the outer one's"
    assert product() > 0
    with pytest.raises(ValueError, match="on purpose"), flushed_denormals():
        raise ValueError("on purpose")
    assert product() > 0


def test_the_machine_describes_itself() -> None:
    assert describe_devices()[0].startswith("cpu: ")
    memory = free_memory(torch.device("cpu"))
    assert memory is None or memory > 2**20


def test_a_truth_value_is_read_later_as_it_was() -> None:
    value = torch.tensor(True)
    copy = HostCopy(value)
    assert copy.read() is True and HostCopy(~value).read() is False
