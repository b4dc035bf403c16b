"""ops.h -> the docstrings of the Python module, and its type stub. Run by the build.

    python bindings/docstrings.py src/kernels/ops.h OP_DOCS_H STUB_PYI

The comment above a declaration is its docstring; the declaration gives names and types.
"""
from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

PYTHON_TYPES = {
    "Stream": "Stream", "In": "Tensor", "Out": "Tensor", "Shape": "tuple[int, ...]", "Neuron": "str", "Precision": "str",
    "int": "int", "double": "float", "bool": "bool", "std::uint32_t": "int", "std::int64_t": "int", "void": "None",
}
# What a caller must name: everything that is not a tensor.
POSITIONAL = {"Stream", "In", "Out", "Shape", "Many<In>", "Many<Out>"}


@dataclass
class Op:
    name: str
    returns: str
    params: list[tuple[str, str]]  # (C++ type, name)
    doc: str


def read_ops(header: str) -> list[Op]:
    ops, comment = [], []
    for line in header.splitlines():
        if line.startswith("// ----"):
            comment = []
        elif line.startswith("//"):
            comment.append(line[3:])
        elif match := re.match(r"(void|Shape|std::int64_t) (\w+)\((.*)\);$", line):
            returns, name, params = match.groups()
            pairs = [p.strip().split(" ") for p in params.split(",")]
            ops.append(Op(name, returns, [(p[0], p[1] if len(p) > 1 else "stream") for p in pairs], "\n".join(comment)))
        else:
            comment = []
    return ops


def python_type(kind: str) -> str:
    return f"list[{PYTHON_TYPES[kind[5:-1]]}]" if kind.startswith("Many<") else PYTHON_TYPES[kind]


def signature(op: Op) -> str:
    words, named = [], False
    for kind, name in op.params:
        if kind not in POSITIONAL and not named:
            words.append("*")
            named = True
        words.append(f"{name}: {python_type(kind)}")
    return f"def {op.name}({', '.join(words)}) -> {PYTHON_TYPES[op.returns]}"


def main(header_path: str, docs_path: str, stub_path: str) -> None:
    ops = read_ops(Path(header_path).read_text())
    docs = ["// Made by bindings/docstrings.py from ops.h.", "#pragma once", ""]
    docs += [f'constexpr const char* doc_{op.name} = R"doc({op.doc})doc";' for op in ops]
    docs += ["", "// Name of an op -> its declaration's parameters: type and name, one pair a line.",
             "constexpr const char* op_signatures[][2] = {"]
    docs += [f'  {{"{op.name}", "{" ".join(f"{kind}:{name}" for kind, name in op.params)}"}},' for op in ops if op.returns == "void"]
    docs += ["};"]
    Path(docs_path).write_text("\n".join(docs) + "\n")

    stub = ['"""The functions of ops.h. Made by bindings/docstrings.py."""', "from typing import Any", "", "Tensor = Any", "Stream = Any", ""]
    for op in ops:
        body = "".join(f"    {line}".rstrip() + "\n" for line in op.doc.splitlines())
        stub.append(f'{signature(op)}:\n    """\n{body}    """' if op.doc else f"{signature(op)}: ...")
    Path(stub_path).write_text("\n".join(stub) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
