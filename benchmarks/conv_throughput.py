#!/usr/bin/env python3
"""Speed of the convolutions alone: `op_throughput.py --ops ^conv`, with all its options.

    python benchmarks/conv_throughput.py --backend host --peer torch
"""
import sys

from op_throughput import main

if __name__ == "__main__":
    sys.exit(main(ops="^conv"))
