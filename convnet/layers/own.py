"""Layers of one's own: two kernels in a CUDA source beside the config (docs/own_layers.md)."""
from __future__ import annotations

from pathlib import PurePosixPath

from . import BadKey, Layer, Shape, key, layer

MOST_NUMBERS = 16  # layer.cuh


@layer("cuda")
class OwnKernels(Layer):
    """What the kernels of a CUDA source compute, each thread one element; needs --allow-code.

    It learns no weights. On the CPU the kernels run under emulation.
    """

    source: str = key(help="file beside the config, with forward_kernel and backward_kernel")
    numbers: str = key("", f"what the kernels see as numbers[0], numbers[1], ..., as 0.5,2: at most {MOST_NUMBERS}")
    outputs: int = key(0, "channels of what it computes; 0: as many as its input has", least=0)
    outputs_x: int = key(0, "height and width of what it computes; 0: those of its input", least=0)

    def title(self) -> str:
        return f"layer of {self.source}"

    def check(self) -> None:
        path = PurePosixPath(self.source)
        if path.is_absolute() or ".." in path.parts or path.suffix not in (".cu", ".cuh"):
            raise BadKey("source", f"found {self.source}, expected a file NAME.cu beside the config, or in a folder there")
        try:
            count = len(self.scalars()["numbers"])
        except ValueError:
            raise BadKey("numbers", f"found {self.numbers}, expected numbers such as 0.5,2") from None
        if count > MOST_NUMBERS:
            raise BadKey("numbers", f"found {count} numbers, expected at most {MOST_NUMBERS}")

    def shape(self, image: Shape) -> Shape:
        channels, height, width = image
        return self.outputs or channels, self.outputs_x or height, self.outputs_x or width

    def scalars(self) -> dict:
        return {"source": self.source, "numbers": tuple(float(word) for word in self.numbers.split(",") if self.numbers)}

    def forward(self, ops, t, training: bool) -> None:
        ops.append("own_forward", (t.inputs[0],), (t.acts,), self.scalars())

    def backward(self, ops, t) -> None:
        if t.inputs_grad[0]:
            ops.append("own_backward", (t.inputs[0], t.acts, t.acts_grad), (t.inputs_grad[0],), self.scalars())
