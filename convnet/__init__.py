"""Convolutional nets from cuda-convnet's config files, with hand-written kernels for GPU and CPU.

    ops = convnet.ops("host")       the functions of ops.h on arrays (docs/library.md)
    net = convnet.load("weights")   a trained net, from a checkpoint of convnet-train

Nothing is imported before it is used.
"""

__all__ = ["__version__", "load", "ops"]


def ops(backend="auto", device=0):
    """The ops of a backend: "cuda", "host", "simt", or "auto", which is cuda where there is a GPU, else host."""
    from .library import library

    return library(backend, device)


def load(path, backend="auto", *, allow_code=False):
    """The net of a checkpoint: `.predict(images)`, `.acts(layer, images)`.

    allow_code: the sources of its layers of type cuda may be compiled and run.
    """
    from .predict import load

    return load(path, backend, allow_code=allow_code)


def __getattr__(name):
    if name == "__version__":
        from importlib import metadata

        try:
            return metadata.version("convnet")
        except metadata.PackageNotFoundError:
            return "not installed"
    raise AttributeError(f"module 'convnet' has no attribute '{name}'")
