"""PEP 517 backend: scikit-build-core, and nvcc from PyPI where cuda_toolkit.py asks for it.

It cannot be a plain requirement in pyproject.toml: a machine without a GPU should not fetch 100 MB.
"""

from scikit_build_core import build as _skbuild
from scikit_build_core.build import *  # noqa: F403  (the other hooks)

import cuda_toolkit


def get_requires_for_build_wheel(config_settings=None):
    return [*_skbuild.get_requires_for_build_wheel(config_settings), *cuda_toolkit.requires()]


def get_requires_for_build_editable(config_settings=None):
    return [*_skbuild.get_requires_for_build_editable(config_settings), *cuda_toolkit.requires()]
