"""The shapes of outputs, as ops.h has them: the compiled functions, so that there is one formula."""
from .backends import load_module

ANY = "host_baseline"  # built on every machine


def conv_shape(images: tuple[int, ...], filters: tuple[int, ...], *, stride: int, padding: int) -> tuple[int, ...]:
    return load_module(ANY).conv_shape(images, filters, stride=stride, padding=padding)


def pool_shape(inputs: tuple[int, ...], *, size: int, stride: int, start: int) -> tuple[int, ...]:
    return load_module(ANY).pool_shape(inputs, size=size, stride=stride, start=start)


def resize_shape(inputs: tuple[int, ...], *, scale: float) -> tuple[int, ...]:
    return load_module(ANY).resize_shape(inputs, scale=scale)
