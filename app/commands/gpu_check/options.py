"""Options of `gateway gpu-check`."""

from __future__ import annotations

import argparse
from pathlib import Path

from app.commands.plan.options import memory
from app.commands.predict.families.arguments import count, positive

EPILOG = """\
exit codes: 0: every branch ran; 1: one failed; 2: the command line or a setting is wrong; 130: interrupted, what was
measured until then is printed
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options to a parser of its own."""
    parser.description = (
        "Run every branch on the GPU: latency, memory beside the plan, half beside single precision, and how many "
        "branches fit together. Each runs in a process of its own. Without a GPU the processor runs them, and the "
        "output says what is missing. docs/gpu-check.md explains it."
    )
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--branches",
        metavar="NAMES",
        help="shell patterns, separated by commas (default: the built branches of the default variants)",
    )
    parser.add_argument(
        "--repeats", type=count, default=20, metavar="N", help="timed runs per branch (default 20)"
    )
    parser.add_argument(
        "--memory",
        type=memory,
        metavar="SIZE",
        help="memory to plan for (default: the first GPU's, or the machine's)",
    )
    parser.add_argument(
        "--timeout", type=positive, default=900.0, metavar="SECONDS",
        help="longest time to load and run one branch; TensorRT takes minutes (default 900)",
    )  # fmt: skip
    parser.add_argument(
        "--triton-url", help="measure a running Triton (gRPC address) instead of this process"
    )
    parser.add_argument("--repository", type=Path, help="the model repository (GATEWAY_REPOSITORY)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every number to this file")
    parser.add_argument(
        "--picture", type=Path, metavar="FILE", help="also draw the results (PNG; needs matplotlib)"
    )
