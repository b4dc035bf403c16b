"""Files that cuda-convnet and its relatives left behind, read without executing anything."""

from convnet.legacy.pickles import read_pickle

__all__ = ["read_pickle"]
