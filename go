#!/usr/bin/env python3
"""Sets up everything in .venv, once, and runs a command there.

    ./go convnet-train LAYERS_CFG PARAMS_CFG    train a net
    ./go pytest                                 run the tests
    ./go python                                 any other command of .venv or of the system
    ./go --with plot COMMAND                    with an extra: plot, torch, pycuda, dev

Needs Python 3.10 with pip and a C++20 compiler, and runs from any directory. When C++ or CUDA
sources have changed, they are compiled first; Python files are used in place.

    CONVNET_CUDA         auto (where a GPU is visible), require, system, pypi, off
    CONVNET_CUDA_ARCHS   all, native, or a list such as "80;90a"
                         these two stay in force until set otherwise; build_backend/cuda_toolkit.py
    CONVNET_VENV         another place for .venv
"""
# Standard library only, and old syntax, so that an old Python can say that it is too old.

import ast
import json
import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
VENV = os.path.abspath(os.environ.get("CONVNET_VENV") or os.path.join(HERE, ".venv"))
PYTHON = os.path.join(VENV, "bin", "python")
BUILD = os.path.join(VENV, "build")
LOG = os.path.join(VENV, "build.log")
PYCUDA_LOG = os.path.join(VENV, "pycuda.log")
LOCK = os.path.join(VENV, "lock")
STATE = os.path.join(VENV, "convnet.json")  # what is set up; read before every command

SETTINGS = {"CONVNET_CUDA": "auto", "CONVNET_CUDA_ARCHS": ""}
COMPILED = ("src", "bindings")  # a change here is compiled by CMake alone
CONFIGURED = (
    "CMakeLists.txt",
    "pyproject.toml",
    "build_backend",
)  # a change here is a new installation


class SetupError(Exception):
    """What went wrong and what to do, with the end of the log where there is one."""

    def __init__(self, message, log=""):
        Exception.__init__(self, message)
        self.log = log


def say(text):
    print("[go] " + text, file=sys.stderr, flush=True)


# ---- what is set up, and what has changed -------------------------------------------------------


def source_files():
    """(path, mtime, size) of every file that the build reads."""
    pending = [os.path.join(HERE, name) for name in COMPILED + CONFIGURED]
    while pending:
        path = pending.pop()
        if os.path.isdir(path):
            pending += [
                entry.path
                for entry in os.scandir(path)
                if entry.name[0] != "." and entry.name != "__pycache__"
            ]
        elif os.path.exists(path):
            status = os.stat(path)
            yield os.path.relpath(path, HERE), status.st_mtime_ns, status.st_size


def compare_files(known):
    """The files as they are, {path: [mtime, size, hash]}, and the paths that differ from `known`.

    A file is read only where its time or size is new; `git checkout` there and back builds nothing.
    """
    now, changed = {}, set(known)
    for path, mtime, size in source_files():
        old = known.get(path)
        if old and old[:2] == [mtime, size]:
            now[path] = old
        else:
            import hashlib

            with open(os.path.join(HERE, path), "rb") as file:
                now[path] = [mtime, size, hashlib.sha256(file.read()).hexdigest()]
        if old and old[2] == now[path][2]:
            changed.discard(path)
        else:
            changed.add(path)
    return now, changed


def gpu_is_visible():
    """In a hundredth of the time that it takes to ask the driver; /dev/dxg is Windows' (WSL)."""
    return os.path.exists("/dev/nvidiactl") or os.path.exists("/dev/dxg")


def read_state():
    try:
        with open(STATE) as file:
            return json.load(file)
    except (OSError, ValueError):
        return {}


def write_state(state):
    with open(STATE + ".new", "w") as file:
        json.dump(state, file)
    os.replace(STATE + ".new", STATE)


def identity():
    """Another one after the checkout was moved, or the Python of .venv upgraded or removed."""
    return [HERE, VENV, os.path.exists(PYTHON) and os.path.realpath(PYTHON)]


class Work:
    """What there is to do before a command can run."""

    def __init__(self, extras):
        known = read_state()
        self.create = known.get("identity") != identity()
        self.known = known = {} if self.create else known
        settings = known.get("settings", SETTINGS)
        self.settings = {name: os.environ.get(name, value) for name, value in settings.items()}
        self.gpu = gpu_is_visible()
        self.files, self.changed = compare_files(known.get("files", {}))
        self.install = (
            self.create
            or self.settings != settings
            or self.gpu != known.get("gpu", self.gpu)
            or any(path.startswith(CONFIGURED) for path in self.changed)
        )
        self.compile = bool(self.changed) and not self.install
        installed = known.get("extras", [])
        automatic = ["pycuda"] if self.gpu else []
        self.extras = [extra for extra in extras + automatic if extra not in installed]
        self.state = {
            "identity": identity(),
            "settings": self.settings,
            "gpu": self.gpu,
            "tried": [self.settings, self.gpu],
            "files": self.files,
            "extras": installed + self.extras,
        }

    def __bool__(self):
        return bool(self.install or self.compile or self.extras)

    def is_recorded(self):
        """Not where a file has a new time and its old content."""
        return self.state == self.known

    def has_other_compilers(self):
        """Than the build directory, which may be of a build that failed."""
        return self.state["tried"] != self.known.get("tried")

    def begin(self):
        """Until the end nothing counts as built; a setting that fails does not stay in force."""
        unfinished = {"identity": identity(), "tried": self.state["tried"], "files": {}}
        write_state({**self.known, **unfinished})

    def end(self):
        write_state({**self.state, "identity": identity()})


# ---- setting up ----------------------------------------------------------------------------------


def environment():
    """The environment of everything that runs in .venv."""
    import glob

    env = dict(os.environ, VIRTUAL_ENV=VENV)
    env.pop("PYTHONHOME", None)
    # nvcc, where it came from PyPI: pycuda's SourceModule looks for it on PATH.
    toolkit = glob.glob(
        os.path.join(VENV, "lib", "python*", "site-packages", "nvidia", "cu*", "bin")
    )
    env["PATH"] = os.pathsep.join(
        [os.path.join(VENV, "bin"), os.environ.get("PATH", os.defpath)] + toolkit
    )
    return env


def build_environment(settings):
    env = dict(
        environment(), PIP_USER="0", PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_NO_INPUT="1", **settings
    )
    for name in ("PYTHONPATH", "PIP_TARGET", "PIP_PREFIX", "PIP_REQUIRE_VIRTUALENV"):
        env.pop(name, None)
    return env


def run(command, env, what):
    """Runs a step of the set-up, its output in the log."""
    import subprocess

    with open(LOG, "a") as log:
        log.write("\n$ " + " ".join(command) + "\n")
        log.flush()
        code = subprocess.call(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=env,
            cwd=HERE,
        )
    if code:
        with open(LOG, errors="replace") as log:
            tail = "".join(log.readlines()[-30:])
        raise SetupError(f"{what} failed: see above, and the whole log in {LOG}", tail)


def output_of(command, env):
    import subprocess

    result = subprocess.run(command, capture_output=True, text=True, env=env, cwd=HERE)
    if result.returncode:
        raise SetupError(result.stderr.strip())
    return result.stdout.strip()


def how_to_install(debian, fedora, arch):
    import shutil

    for tool, command, packages in (
        ("apt-get", "apt-get install", debian),
        ("dnf", "dnf install", fedora),
        ("pacman", "pacman -S", arch),
    ):
        if shutil.which(tool):
            return f"sudo {command} {packages}"
    return "install the package that Debian calls " + debian


def check_prerequisites(create):
    """Stops before anything is made, and names all that is missing at once."""
    import importlib.util
    import shutil
    import sysconfig

    missing = []
    if not any(
        map(shutil.which, [os.environ.get("CXX", "").split(" ")[0], "c++", "g++", "clang++"])
    ):
        missing.append(("C++ compiler", how_to_install("g++", "gcc-c++", "gcc")))
    # What follows is about the Python that runs this; an existing .venv may be of another.
    if create and not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")):
        missing.append(("Python.h", how_to_install("python3-dev", "python3-devel", "python")))
    if create and not (
        importlib.util.find_spec("ensurepip")
        or importlib.util.find_spec("pip")
        or shutil.which("uv")
    ):
        missing.append(("pip", how_to_install("python3-pip", "python3-pip", "python-pip")))
    if missing:
        raise SetupError("\n".join(f"no {what} found: {remedy}" for what, remedy in missing))


def create_venv(env):
    """A .venv that has pip. Debian has no ensurepip, and lets nobody install outside a venv."""
    import importlib.util
    import shutil
    import venv

    if os.path.exists(os.path.join(VENV, "pyvenv.cfg")) and not os.path.exists(STATE):
        raise SetupError(
            f"{VENV} is there, but ./go has not made it: "
            "remove it, or set CONVNET_VENV to another directory"
        )
    for entry in os.scandir(VENV):
        if entry.path not in (LOG, LOCK):
            shutil.rmtree(entry.path) if entry.is_dir(follow_symlinks=False) else os.unlink(
                entry.path
            )
    write_state({})  # from here on it is ours, also when interrupted
    venv.create(VENV, symlinks=True)

    pip, bootstrap = ["-m", "pip", "install"], os.path.join(VENV, "bootstrap")
    ways = []
    if importlib.util.find_spec("ensurepip"):
        ways.append([[PYTHON, "-m", "ensurepip", "--default-pip"]])
    if importlib.util.find_spec("pip"):
        ways.append([[sys.executable, "-m", "pip", "--python", PYTHON, "install", "pip"]])
        # pip before 22.3 has no --python: let it fetch a newer one, and that one install itself.
        ways.append(
            [
                [sys.executable] + pip + ["--target", bootstrap, "pip"],
                ["env", "PYTHONPATH=" + bootstrap, PYTHON] + pip + ["--ignore-installed", "pip"],
            ]
        )
    if shutil.which("uv"):
        ways.append([["uv", "pip", "install", "--python", PYTHON, "pip"]])
    for way in ways:
        try:
            for command in way:
                run(command, env, "getting pip")
            break
        except SetupError:
            if way is ways[-1]:
                raise
    shutil.rmtree(bootstrap, ignore_errors=True)


def read_pyproject():
    """[build-system] requires, and the extras. Python 3.10 has no parser for TOML."""
    with open(os.path.join(HERE, "pyproject.toml")) as file:
        text = file.read()
    requires = re.search(r"^\[build-system\]\nrequires = (\[.*?\])", text, re.M | re.S).group(1)
    extras = re.search(r"^\[project\.optional-dependencies\]\n(.*?)^\[", text, re.M | re.S).group(1)
    return ast.literal_eval(requires), re.findall(r"^(\w+) = \[", extras, re.M)


def install_tools(env):
    """What the build needs, nvcc among it where cuda_toolkit.py says so."""
    run([PYTHON, "-m", "pip", "install"] + read_pyproject()[0], env, "installing the build's tools")
    hook = "import convnet_build; print(*convnet_build.get_requires_for_build_editable())"
    backend_path = dict(env, PYTHONPATH=os.path.join(HERE, "build_backend"))
    needed = output_of([PYTHON, "-c", hook], backend_path).split()
    if needed:
        say("fetching " + " ".join(needed))
        run([PYTHON, "-m", "pip", "install"] + needed, env, "installing the build's tools")


def install(env):
    """The checkout, editable: Python files stay where they are, extension modules go into .venv.

    Without pip's build isolation, whose ever new paths would have everything compiled anew.
    """
    options = ["-v", "--no-build-isolation", "--config-settings=build-dir=" + BUILD]
    run(
        [PYTHON, "-m", "pip", "install"] + options + ["--editable", HERE + "[test]"],
        env,
        "the build",
    )


def compile_sources(env):
    """What `install` does where sources have changed, without pip: seconds less."""
    with open(os.path.join(BUILD, "CMakeCache.txt")) as file:
        cmake = re.search(r"^CMAKE_COMMAND:INTERNAL=(.*)$", file.read(), re.M).group(1)
    site = output_of([PYTHON, "-c", "import sysconfig; print(sysconfig.get_path('platlib'))"], env)
    run([cmake, "--build", BUILD], env, "the build")
    run([cmake, "--install", BUILD, "--prefix", site, "--strip"], env, "installing what was built")


def start_pycuda(env):
    """pycuda comes as source, and takes minutes of one core: beside our own build."""
    import subprocess

    with open(PYCUDA_LOG, "w") as log:
        return subprocess.Popen(
            [PYTHON, os.path.join("build_backend", "install_pycuda.py")],
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=env,
            cwd=HERE,
        )


def finish_pycuda(process):
    """Convnet works without pycuda, so its failure is a line and no more."""
    if process.poll() is None:
        say(f"waiting for pycuda (log: {PYCUDA_LOG})")
    failed = process.wait()
    with open(PYCUDA_LOG, errors="replace") as log:
        reason = ([line.strip() for line in log if "error" in line.lower()] or ["no reason given"])[
            -1
        ]
    say(
        f"pycuda is not installed, convnet works without it: {reason} (log: {PYCUDA_LOG})"
        if failed
        else "pycuda is installed"
    )


def set_up(work):
    import shutil
    import time

    start = time.time()
    if work.install or work.compile:
        check_prerequisites(work.create)
    env = build_environment(work.settings)
    with open(LOG, "w"):
        pass
    if work.create:
        say(f"setting up {VENV}: a minute or two, once (log: {LOG})")
        create_venv(env)
    elif work.install:
        say(f"building again (log: {LOG})")
    if work.install:
        if work.has_other_compilers():
            shutil.rmtree(BUILD, ignore_errors=True)  # CMake does not exchange a compiler
        work.begin()
        install_tools(env)
    pycuda = start_pycuda(env) if "pycuda" in work.extras else None
    try:
        if work.install:
            install(env)
        if work.compile:
            say("compiling: " + " ".join(sorted(work.changed)))
            compile_sources(env)
        names = ",".join(extra for extra in work.extras if extra != "pycuda")
        if names:
            say("installing the extra " + names)
            run([PYTHON, "-m", "pip", "install", f"convnet[{names}]"], env, "installing " + names)
        if pycuda:
            finish_pycuda(pycuda)
    finally:
        if pycuda and pycuda.poll() is None:
            pycuda.terminate()
    work.end()
    say(f"ready after {time.time() - start:.0f} s")


# ---- the command ---------------------------------------------------------------------------------


def parse(arguments):
    """The extras wanted, and the command."""
    extras = []
    while arguments and arguments[0].startswith("-"):
        option, _, value = arguments.pop(0).partition("=")
        if option in ("-h", "--help"):
            print(__doc__.strip())
            sys.exit(0)
        if option != "--with":
            raise SetupError(
                f"unknown option {option}: the options of a command stand behind it; ./go --help"
            )
        if not value:
            value = arguments.pop(0) if arguments else ""
        extras += value.split(",")
    known = read_pyproject()[1] if extras else []
    for extra in extras:
        if extra not in known:
            raise SetupError(f"--with {extra}: expected one of {', '.join(known)}")
    return extras, arguments


def execute(command):
    env = environment()
    own = os.path.join(VENV, "bin", command[0])
    try:
        os.execvpe(own if os.path.exists(own) else command[0], command, env)
    except OSError as error:
        say(f"{command[0]}: {error.strerror}")
        sys.exit(127)


def main():
    import fcntl

    try:
        extras, command = parse(sys.argv[1:])
        work = Work(extras)
        if work or not work.is_recorded():
            os.makedirs(VENV, exist_ok=True)
            with open(LOCK, "w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    say("waiting for another ./go to finish its set-up")
                    fcntl.flock(lock, fcntl.LOCK_EX)
                    work = Work(extras)  # it may have done all there was to do
                if work:
                    set_up(work)
                else:
                    work.end()
    except SetupError as error:
        sys.stderr.write(error.log)
        say(str(error))
        sys.exit(1)
    except OSError as error:
        say(f"cannot set up: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        say("interrupted; the next ./go goes on")
        sys.exit(130)
    if not command:
        say("all is set up. Next: ./go convnet-info, ./go pytest, ./go --help")
        return
    execute(command)


if __name__ == "__main__":
    if sys.version_info < (3, 10):
        say(f"Python {sys.version.split()[0]} is too old; python3.X go COMMAND, X at least 10")
        sys.exit(1)
    main()
