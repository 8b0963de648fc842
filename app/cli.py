"""`gateway`: run the service, and inspect or prepare it."""

from __future__ import annotations

from app import start

if __name__ == "__main__":
    start.end_when_told()

import argparse
import errno
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from app import __version__, extras
from app.commands import keys as keys_command
from app.commands import models as models_command
from app.commands import routes as routes_command
from app.commands import up as up_command
from app.commands.bulk import options as bulk_options
from app.commands.compare import options as compare_options
from app.commands.gpu_check import options as gpu_check_options
from app.commands.parser import Parser
from app.commands.plan import options as plan_options
from app.commands.predict import options as predict_options
from app.commands.predict.families import arguments
from app.commands.predict.families.table import commands_of
from app.commands.smoke import options
from app.commands.verify import options as verify_options
from app.settings import (
    Settings,
    environment,
    unknown_variables,
    variable,
)
from routing import catalogue as catalogues
from routing.catalogue import CatalogueError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # why standard output may not be written


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit code says how it went (2: the command line or a setting is wrong)."""
    parser = _parser()
    parsed = parser.parse_args(bulk_options.with_run(sys.argv[1:] if arguments is None else arguments))
    try:
        exit_code: int = parsed.command(parsed)
        sys.stdout.flush()
    except BrokenPipeError:  # `| head`: nobody reads the rest
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE  # as the shell has it; 0 would say that smoke found all well
    except OSError as error:
        return _failed(error)
    except CatalogueError as error:
        print(f"gateway: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        said = extras.explained(error)
        if said is None:
            raise
        print(f"gateway: {said}", file=sys.stderr)
        return 2
    except ValidationError as error:
        for fault in error.errors(include_input=False):  # the input may be a password
            said = fault["msg"].removeprefix("Value error, ")
            of = f"{variable(str(fault['loc'][0]))}: " if fault["loc"] else ""
            print(f"gateway: {of}{said}", file=sys.stderr)
        for unknown in unknown_variables(environment()):
            print(f"gateway: {unknown}", file=sys.stderr)
        return 2
    return exit_code


def _failed(error: OSError) -> int:
    """Print a failure of a path that the command line or a setting names, or of standard output, as one line.

    Raises:
        OSError: it is neither.
    """
    if error.filename is not None:
        print(f"gateway: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    if error.errno not in _FULL:
        raise error
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    print(f"gateway: the output can't be written: {error.strerror}", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="gateway", description=__doc__)
    parser.add_argument("--version", action="version", version=f"gateway {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    catalogue = catalogues.load()
    serve = commands.add_parser("serve", help="run the service")
    _add_flags(serve)
    serve.set_defaults(command=_serve)
    up = commands.add_parser("up", help="build the starter models in your cache folder and serve them")
    up_command.add_options(up)
    up.set_defaults(command=up_command.up)
    config = commands.add_parser(
        "config", help="print the effective settings and their sources, with secrets masked"
    )
    _add_flags(config)
    form = config.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON object")
    form.add_argument("--markdown", action="store_true", help="print the table of all settings instead")
    config.set_defaults(command=_config)
    predict_options.add_commands(commands, commands_of(catalogue), _predict)
    _add_analyze(commands)
    bulk = commands.add_parser(
        "bulk", help="run thousands of videos through a profile, and report on such runs"
    )
    bulk_options.add_options(bulk)
    verify = commands.add_parser(
        "verify", help="check the files and models of an output of analyze or bulk against its manifests"
    )
    verify_options.add_options(verify)
    verify.set_defaults(command=_verify)
    _add_smoke(commands)
    _add_bench(commands)
    plan = commands.add_parser("plan", help="estimate the memory of branches, and choose those that fit")
    plan_options.add_options(plan)
    plan.set_defaults(command=_plan)
    gpu_check = commands.add_parser(
        "gpu-check", help="run every branch on the GPU: latency, memory, what fits"
    )
    gpu_check_options.add_options(gpu_check)
    gpu_check.set_defaults(command=_gpu_check)
    models = commands.add_parser("models", help="add, list, verify and remove your own models")
    models_command.add_options(models)
    models.set_defaults(command=models_command.models)
    _add_backup(commands)
    keys = commands.add_parser("keys", help="create API keys")
    keys_command.add_options(keys)
    keys.set_defaults(command=keys_command.keys)
    branches = commands.add_parser("branches", help="list the branches of a gateway or of a models folder")
    predict_options.add_branches(branches)
    branches.set_defaults(command=_branches)
    _add_compare(commands)
    doctor = commands.add_parser(
        "doctor", help="check the installation, models, servers and folders, and suggest fixes"
    )
    predict_options.add_doctor(doctor)
    doctor.set_defaults(command=_doctor)
    metrics = commands.add_parser("metrics", help="print the table of all metrics (docs/metrics.md)")
    metrics.set_defaults(command=_metrics)
    routes = commands.add_parser("routes", help="print the branch for each frame size, with the reason")
    routes_command.add_options(routes, catalogue)
    routes.set_defaults(command=routes_command.routes)
    return parser


_FLAGS = ("host", "port", "engine", "triton_url", "repository", "variant", "workers", "log_level")


def _add_flags(parser: argparse.ArgumentParser) -> None:
    """The settings that `serve` takes on its command line too."""
    parser.add_argument("--host", help="address to listen on (GATEWAY_HOST)")
    parser.add_argument("--port", type=int, help="port to listen on (GATEWAY_PORT)")
    parser.add_argument(
        "--engine", choices=("embedded", "triton"), help="engine that runs the models (GATEWAY_ENGINE)"
    )
    parser.add_argument("--triton-url", help="Triton's gRPC or http:// address; implies --engine triton")
    parser.add_argument("--repository", type=Path, help="the model repository (GATEWAY_REPOSITORY)")
    parser.add_argument("--variant", help="default detection variant (GATEWAY_VARIANT)")
    parser.add_argument("--workers", type=int, help="processes that serve (GATEWAY_WORKERS)")
    parser.add_argument("--log-level", help="debug, info, warning or error (GATEWAY_LOG_LEVEL)")


def _flags(parsed: argparse.Namespace) -> dict[str, Any]:
    given = {name: getattr(parsed, name) for name in _FLAGS if getattr(parsed, name) is not None}
    if "triton_url" in given:
        given.setdefault("engine", "triton")
    return given


def _add_backup(commands: Any) -> None:
    parser = commands.add_parser(
        "backup",
        help="copy the video jobs, while they run, into an empty folder",
        description="Copy the index of the video jobs and their files to a folder from which a service can continue. "
        "Exit code 0: copied; 1: it can't be read or written; 2: the command or a setting is wrong.",
    )
    parser.add_argument("target", type=Path, help="a folder that is empty or isn't there")
    parser.set_defaults(command=_backup)


def _add_smoke(commands: Any) -> None:
    parser = commands.add_parser(
        "smoke",
        help="test a Triton or a gateway from outside",
        description=options.EXIT_CODES,
    )
    options.add_options(parser)
    parser.set_defaults(command=_smoke)


def _smoke(parsed: argparse.Namespace) -> int:
    from app.commands.smoke.command import smoke  # noqa: PLC0415  # `gateway --help` needs no FastAPI

    return smoke(parsed)


def _predict(parsed: argparse.Namespace) -> int:
    from app.commands.predict.command import predict  # noqa: PLC0415  # `gateway --help` needs no NumPy

    return predict(parsed)


def _branches(parsed: argparse.Namespace) -> int:
    from app.commands.branches import branches  # noqa: PLC0415  # as above

    return branches(parsed)


def _add_compare(commands: Any) -> None:
    parser = commands.add_parser("compare", help="answer inputs by two versions of a branch, and compare")
    compare_options.add_options(parser)
    parser.set_defaults(command=_compare)


def _compare(parsed: argparse.Namespace) -> int:
    from app.commands.compare.command import compare  # noqa: PLC0415  # as above

    return compare(parsed)


def _doctor(parsed: argparse.Namespace) -> int:
    from app.commands.doctor.command import doctor  # noqa: PLC0415  # as above

    return doctor(parsed)


def _plan(parsed: argparse.Namespace) -> int:
    from app.commands.plan.command import run  # noqa: PLC0415  # `gateway --help` needs no NumPy

    return run(parsed)


def _gpu_check(parsed: argparse.Namespace) -> int:
    from app.commands.gpu_check.command import run  # noqa: PLC0415  # as above

    return run(parsed)


def _add_bench(commands: Any) -> None:
    # No character begins an option here: all that follows is benchmarks.matrix', --help too.
    parser = commands.add_parser(
        "bench", help="measure branches (python -m benchmarks.matrix)", add_help=False, prefix_chars="\0"
    )
    parser.add_argument("arguments", nargs="*")
    parser.set_defaults(command=_bench)


def _bench(parsed: argparse.Namespace) -> int:
    from app.commands.bench import bench  # noqa: PLC0415  # `gateway --help` needs no NumPy

    return bench(parsed.arguments)


def _add_analyze(commands: Any) -> None:
    parser = commands.add_parser(
        "analyze",
        help="run videos through a profile and write their artefacts",
        description="Exit code 0: every video is done; 3: some could be decoded only in part; "
        "1: some failed; 2: the command, a setting or the profile is wrong; 130: interrupted (run it again to resume).",
    )
    parser.add_argument(
        "--video-path", required=True, nargs="+",
        help="a video, a folder (searched recursively), a .txt list with one path per line, or s3://bucket/video.mp4",
    )  # fmt: skip
    parser.add_argument("--profile-path", type=Path, required=True, help="a profile, see profiles/")
    parser.add_argument(
        "--output",
        required=True,
        help="output folder, or s3://bucket/prefix; each video gets a folder with its name",
    )
    parser.add_argument(
        "--format", action="append", default=[], metavar="NAMES",
        help="files beside npz, separated by commas: parquet (a table per component), coco (boxes), mp4 (annotated "
        "video), sheet (contact sheet); those of finished videos are made without running a model",
    )  # fmt: skip
    parser.add_argument("--render", action="store_true", help="the same as --format mp4")
    parser.add_argument("--force", action="store_true", help="process finished videos again")
    parser.add_argument(
        "--jobs", type=arguments.count, metavar="N",
        help="videos analysed at once, over one set of models (default: one per two cores, at most GATEWAY_LEASES)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object per video on stdout")
    parser.add_argument(
        "--engine", choices=("embedded", "triton"), help="engine that runs the models; overrides the profile"
    )
    parser.add_argument("--triton-url", help="host:port of Triton's gRPC service; implies --engine triton")
    parser.add_argument("--repository", type=Path, help="the model repository (GATEWAY_REPOSITORY)")
    parser.set_defaults(command=_analyze)


def _analyze(parsed: argparse.Namespace) -> int:
    from app.commands.analyze import analyze  # noqa: PLC0415  # `gateway --help` needs no FastAPI

    return analyze(parsed)


def _verify(parsed: argparse.Namespace) -> int:
    from app.commands.verify.command import verify  # noqa: PLC0415  # as above

    return verify(parsed)


def _backup(parsed: argparse.Namespace) -> int:
    from app.commands.backup.command import backup  # noqa: PLC0415  # as above

    return backup(parsed.target, Settings())


def _config(parsed: argparse.Namespace) -> int:
    from app.commands.config import config  # noqa: PLC0415  # as above

    code = config(parsed, _flags(parsed))
    unknown = unknown_variables(environment())
    for fault in unknown:
        print(f"gateway: {fault}", file=sys.stderr)
    return 2 if unknown else code


def _serve(parsed: argparse.Namespace) -> int:
    settings = Settings(**_flags(parsed))
    from app.commands.serve import serve  # noqa: PLC0415  # `gateway --help` needs no server

    return serve(settings)


def _metrics(_: argparse.Namespace) -> int:
    from app.metrics import Metrics, markdown  # noqa: PLC0415  # for those who serve, as above
    from app.metrics.bulk import BulkMetrics  # noqa: PLC0415  # as above

    print(markdown([*Metrics(triton=True).described, *BulkMetrics().described]), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
