"""convnet-info: what is built and what is not, why, the devices, how to mend what is missing."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]


def version() -> str:
    try:
        return metadata.version("convnet")
    except metadata.PackageNotFoundError:
        return "not installed"


def commit() -> str:
    """Of the checkout as it is now; of the build where there is no checkout; else "" ."""
    if (CHECKOUT / ".git").exists():
        try:
            describe = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
            return subprocess.run(
                describe, cwd=CHECKOUT, capture_output=True, text=True, check=True
            ).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            pass
    return getattr(build_info(), "commit", "")


def build_info():
    """What CMake wrote down, or None: the sources are not installed."""
    try:
        return importlib.import_module("convnet._build_info")
    except ImportError:
        return None


def how_to_build(setting: str = "") -> str:
    command = (
        "./go convnet-info"
        if (CHECKOUT / "go").exists()
        else "pip install --force-reinstall --no-deps ."
    )
    return f"{setting} {command}".strip()


def import_problem(module: str) -> str:
    try:
        importlib.import_module(f"convnet.{module}")
    except ImportError as error:
        return str(error)
    return ""


def host_isa() -> str:
    try:
        from convnet.backends import host_isa

        return host_isa()
    except Exception as error:  # whatever it is: this command is there to report it
        return f"unknown ({error})"


def backend(module: str) -> dict:
    """Whether a module was built and can be imported."""
    built = module in getattr(build_info(), "modules", [])
    problem = import_problem(module) if built else "not built"
    return {
        "built": built,
        "usable": not problem,
        "problem": problem,
        "mend": how_to_build() if problem else "",
    }


def host() -> dict:
    modules = getattr(build_info(), "modules", [])
    isas = [module.removeprefix("_host_") for module in modules if module.startswith("_host_")]
    isa = host_isa()
    state = backend(f"_host_{isa}")
    if isa.startswith("unknown"):
        problem = isa.removeprefix("unknown ").strip("()")
        state |= {"built": bool(isas), "problem": problem, "mend": f"CONVNET_ISA={isas[0]}, or none" if os.environ.get("CONVNET_ISA") and isas else state["mend"]}
    devices = [{"name": processor_name(), "cores": len(os.sched_getaffinity(0))}]
    return {**state, "isas": isas, "isa": isa, "devices": devices}


def processor_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.machine()


def cuda() -> dict:
    choice = getattr(build_info(), "cuda", {})
    state = {**backend("_cuda"), **choice, "devices": []}
    if not state["built"]:
        state["problem"] = f"not built: {choice.get('why_not') or 'nothing is'}"
        state["mend"] = how_to_build("CONVNET_CUDA=require")
    elif state["usable"]:
        module = importlib.import_module("convnet._cuda")
        try:
            for device in range(module.device_count()):
                state["devices"].append(
                    {"name": module.device_name(device), "memory": module.total_memory(device)}
                )
            problem = "" if state["devices"] else "no GPU is visible"
        except RuntimeError as error:
            problem = str(error)
        if problem:
            state.update(
                usable=False,
                problem=problem,
                mend="nvidia-smi    # shows what the driver sees, or what is wrong with it",
            )
    return state


def pycuda() -> dict:
    try:
        installed, problem, mend = metadata.version("pycuda"), "", ""
        importlib.import_module("pycuda.driver")
    except metadata.PackageNotFoundError:
        installed, problem, mend = "", "not installed", "./go --with pycuda convnet-info"
    except ImportError as error:  # libcuda.so.1, which comes with the driver
        problem, mend = (
            str(error),
            "install the NVIDIA driver; nothing but convnet.gpuarray needs pycuda",
        )
    return {"version": installed, "usable": not problem, "problem": problem, "mend": mend}


def tiles(name: str) -> str:
    """Which tiles the products of conv, fc and local take."""
    try:
        from convnet.backends import tile_table

        table = tile_table(name)
    except Exception as error:  # as above
        return f"tiles: {error}"
    if not table:
        return "tiles by the rule of shapes: none were measured on this device"
    return f"tiles of {table['lines']} products as measured ({table['digest']}): {', '.join(table['files'])}"


def gather() -> dict:
    build = build_info()
    backends = {"cuda": cuda(), "host": host(), "simt": backend("_simt")}
    for name in ("cuda", "simt"):
        if backends[name]["usable"]:
            backends[name]["tiles"] = tiles(name)
    return {
        "version": version(),
        "commit": commit(),
        "location": str(Path(__file__).parents[1]),
        "python": platform.python_version(),
        "numpy": metadata.version("numpy"),
        "platform": platform.platform(),
        "compiler": getattr(build, "compiler", ""),
        "host_flags": getattr(build, "host_flags", ""),
        "backends": backends,
        "pycuda": pycuda(),
    }


def devices_line(device: dict) -> str:
    if "memory" in device:
        return f"{device['name']}, {device['memory'] / 2**30:.0f} GiB"
    return f"{device['name']}, {device['cores']} cores"


def report(info: dict) -> str:
    lines = [
        f"convnet {info['version']}"
        + (f" ({info['commit']})" if info["commit"] else "")
        + f" in {info['location']}",
        f"Python {info['python']}, numpy {info['numpy']}, {info['platform']}",
    ]
    if info["compiler"]:
        lines.append(f"built by {info['compiler']}")
    facts = {name: [] for name in info["backends"]}
    state = info["backends"]["cuda"]
    if state["built"]:
        facts["cuda"] = [
            f"built by nvcc {state['version']} for {', '.join(state['architectures'])}"
        ]
    state = info["backends"]["host"]
    if state["usable"]:
        facts["host"] = [f"runs on {state['isa']}; built for {', '.join(state['isas'])}"]
    facts["simt"] = ["the CUDA kernels on the CPU, for tests"]
    lines.append("")
    for name, state in [*info["backends"].items(), ("pycuda", info["pycuda"])]:
        heading = f"{name:<8}"
        words = facts.get(name, [info["pycuda"]["version"]] if info["pycuda"]["version"] else [])
        words = words + [devices_line(device) for device in state.get("devices", [])]
        words += [state["tiles"]] if "tiles" in state else []
        words += [state["problem"]] if state["problem"] else []
        words += [f"to mend: {state['mend']}"] if state["mend"] else []
        for word in words or ["usable"]:
            lines.append(heading + word)
            heading = " " * 8
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="convnet-info", description=__doc__.removeprefix("convnet-info: ").strip()
    )
    parser.add_argument(
        "--json", action="store_true", help="the same, and more, as one JSON object"
    )
    parser.add_argument("--version", action="version", version=f"convnet {version()}")
    options = parser.parse_args(arguments)
    info = gather()
    print(json.dumps(info, indent=2) if options.json else report(info))
    return 0 if info["backends"]["host"]["usable"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
