"""Another machine, imitated: with this folder on PYTHONPATH and CONSTCLF_TESTS_WEIGHT_NOISE=1 (or 2, 3, ...: the draw),
every weight that is loaded or initialised comes out multiplied by 1 + 1e-7 g, with g from a standard normal.

That is what a processor with other vector instructions does to a run: it adds in another order, and the last bit
differs. Short trainings blow that up. tools/elsewhere.py runs the notebooks so. Without the variable this file does
nothing, and the library knows neither the file nor the variable.

The noise of a tensor depends on the draw and on its values alone: loading twice gives the same weights, a draw repeats
from run to run, and torch's own random numbers stay what they were.
"""

import functools
import os
import sys
import zlib

RELATIVE = 1e-7
# the functions of torch.nn.init that all layers, those of transformers included, fill their weights with
INITIALISERS = (
    "uniform_", "normal_", "trunc_normal_", "constant_", "ones_", "xavier_uniform_", "xavier_normal_",
    "kaiming_uniform_", "kaiming_normal_", "orthogonal_",
)  # fmt: skip


def add_noise(tensor, draw):
    """In place; integers, and weights that have no memory yet, are left alone."""
    import torch

    if not tensor.is_floating_point() or tensor.is_meta:
        return
    with torch.no_grad():
        exact = tensor.detach().cpu().double()
        seed = zlib.crc32(exact.numpy().tobytes(), draw)
        noise = torch.randn(exact.shape, dtype=exact.dtype, generator=torch.Generator().manual_seed(seed))
        tensor.copy_(exact * (1 + RELATIVE * noise))


def install(draw):
    import safetensors.torch
    import torch

    def initialised(function):
        @functools.wraps(function)
        def wrapper(tensor, *args, **kwargs):
            result = function(tensor, *args, **kwargs)
            add_noise(tensor, draw)
            return result

        return wrapper

    # before transformers is imported: it keeps these functions at import
    for name in INITIALISERS:
        setattr(torch.nn.init, name, initialised(getattr(torch.nn.init, name)))

    def read(function):
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            tensors = function(*args, **kwargs)
            for tensor in tensors.values():
                add_noise(tensor, draw)
            return tensors

        return wrapper

    for name in ("load", "load_file"):  # heads and adapters
        setattr(safetensors.torch, name, read(getattr(safetensors.torch, name)))

    from transformers import PreTrainedModel

    original = PreTrainedModel.from_pretrained.__func__

    @functools.wraps(original)
    def from_pretrained(cls, *args, **kwargs):
        loaded = original(cls, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded  # a tuple with output_loading_info=True
        for parameter in model.parameters():
            add_noise(parameter, draw)
        return loaded

    PreTrainedModel.from_pretrained = classmethod(from_pretrained)


if os.environ.get("CONSTCLF_TESTS_WEIGHT_NOISE"):
    try:
        install(int(os.environ["CONSTCLF_TESTS_WEIGHT_NOISE"]))
    except Exception:  # Python would print one line and go on without noise: a test that tests nothing
        sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
        os._exit(1)
