"""The command line: a few flags that everyone uses; all else is a key of the configuration.

Handlers import what they need themselves, so that `epd --help` is quick.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from epd import __version__
from epd.bench import flags as bench_flags
from epd.cli.media_flags import add_media_flags, media_settings
from epd.cli.model_flags import add_model_flags, model_settings
from epd.cli.operator_flags import add_operator
from epd.cli.size_flags import add_size
from epd.errors import EpdError

EXAMPLES = """\
examples:
  epd serve                                   the embedded model, which sees and hears
  epd serve ./Qwen2.5-VL-3B --topology 2E1P1D --set dtype=float32
  epd check configs/1E1P1D.yaml               every key, resolved, and the memory it takes
  epd size ./Qwen2.5-VL-7B --image 1080p      workers per stage, by arithmetic
  epd bench --num-prompts 100                 measure the server on port 8000 under load
  epd trace --ask "What is it?" --item a.png  where its time went, for Perfetto
  epd status                                  the workers of the cluster on port 8000
  epd encode --config encode.yaml             one role by hand: see launch/local
"""

ROLE_HELP = {
    "gateway": "run the HTTP front and the owner of every request",
    "encode": "run one encode worker: fetch, decode, preprocess, tower",
    "prefill": "run one prefill worker",
    "decode": "run one decode worker",
    "fused": "run one worker that prefills and decodes (the PD of 1E1PD)",
    "engine": "run one worker with all three stages (the EPD behind a gateway)",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 2 is a configuration or start that cannot work, with a reason on stderr."""
    args = build_parser().parse_args(argv)
    try:
        return int(args.handler(args))
    except EpdError as error:
        print(f"epd {args.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def run() -> NoReturn:
    """The program `epd`."""
    code = main()
    if "torch" in sys.modules:  # whose modules take seconds to go, and leave nothing behind
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)
    sys.exit(code)


def build_parser() -> argparse.ArgumentParser:
    """Every flag there is. A test pins this list: new settings are configuration keys."""
    parser = argparse.ArgumentParser(
        prog="epd",
        description="Serve a multimodal language model as separate encode, prefill and decode "
        "stages.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"epd {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_serve(commands)
    for role, text in ROLE_HELP.items():
        _add_role(commands, role, text)
    check = commands.add_parser(
        "check", help="validate a configuration and print it, resolved, with the memory it takes"
    )
    check.add_argument("config", metavar="FILE", help="YAML configuration")
    _add_set(check)
    check.set_defaults(handler=_check)
    keys = commands.add_parser("keys", help="make the keys of a cluster that leaves this machine")
    keys.add_argument("folder", metavar="FOLDER", help="new folder; wire.curve_dir names it")
    keys.set_defaults(handler=_keys)
    add_size(commands)
    add_operator(commands)
    _add_bench(commands)
    return parser


def _add_bench(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    bench = commands.add_parser(
        "bench",
        help="measure a running server under load",
        description=bench_flags.DESCRIPTION,
        epilog=bench_flags.EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    bench_flags.add_bench_flags(bench)
    bench.set_defaults(handler=_bench)


def _add_serve(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    serve = commands.add_parser(
        "serve",
        help="start and supervise a whole cluster on this machine",
        description="Start a gateway and its workers, print one line when they can take requests, "
        "restart what dies, and stop everything in order on Ctrl-C or SIGTERM.",
    )
    serve.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        help="folder of a Hugging Face checkpoint; without it the embedded one, which knows flat "
        "shapes, their motion and beeps",
    )
    serve.add_argument(
        "--topology",
        metavar="NENPND",
        help="2E1P1D: that many encode, prefill and decode workers; 2E1PD: prefill and decode in "
        "one worker; EPD: one engine process (default 1E1P1D)",
    )
    serve.add_argument("--host", help="address the HTTP server binds to (default 127.0.0.1)")
    serve.add_argument("--port", help="its port, 0 for a free one (default 8000)")
    serve.add_argument(
        "--api-key",
        action="append",
        metavar="KEY",
        help="clients must show this key, or another given so; gateway.api_keys says more of keys",
    )
    serve.add_argument("--no-ui", action="store_true", help="serve no page at /")
    serve.add_argument("--config", metavar="FILE", help="YAML configuration; flags win over it")
    _add_set(serve)
    _add_supervised(serve)
    add_model_flags(serve)
    add_media_flags(serve)
    serve.set_defaults(handler=_serve)


def _add_role(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], role: str, text: str
) -> None:
    parser = commands.add_parser(
        role,
        help=text,
        description=text[0].upper() + text[1:] + ". The keys that matter here are model, name, "
        "listen (where to bind) and, for a worker, gateways (where to register).",
    )
    parser.add_argument("--config", metavar="FILE", help="YAML configuration")
    _add_set(parser)
    _add_supervised(parser)
    add_media_flags(parser)
    parser.set_defaults(handler=_role)


def _add_supervised(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ready-fd",
        type=int,
        metavar="N",
        help="for a supervisor: write one JSON line to this descriptor, when ready or with the "
        "error",
    )
    parser.add_argument(
        "--parent-fd",
        type=int,
        metavar="N",
        help="for a supervisor: stop when this pipe is closed at its other end",
    )


def _add_set(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="overrides",
        metavar="KEY=VALUE",
        help="set any key of the configuration, for example dtype=float32 or "
        "language.kv_tokens=65536; `epd check` prints them all",
    )


def _serve(args: argparse.Namespace) -> int:
    from epd.cli.serve import serve

    flags = {
        "model": args.model,
        "topology": args.topology,
        "gateway.host": args.host,
        "gateway.port": args.port,
        "gateway.api_keys": args.api_key,
        "gateway.ui": False if args.no_ui else None,
    }
    # In quotes: a folder called 1e3 or "a: b" is no number and no mapping.
    given = [f"{key}={json.dumps(value)}" for key, value in flags.items() if value is not None]
    said = [*given, *model_settings(args), *media_settings(args), *args.overrides]
    return serve(args.config, said, ready_fd=args.ready_fd, parent_fd=args.parent_fd)


def _role(args: argparse.Namespace) -> int:
    from epd.cli.role import run

    return run(
        args.command,
        args.config,
        [*media_settings(args), *args.overrides],
        ready_fd=args.ready_fd,
        parent_fd=args.parent_fd,
    )


def _check(args: argparse.Namespace) -> int:
    from epd.cli.memory import estimate
    from epd.config import dump_config, load_config

    config = load_config(args.config, args.overrides)
    print(dump_config(config), end="")
    for line in estimate(config):
        print(f"# {line}")
    return 0


def _bench(args: argparse.Namespace) -> int:
    from epd.bench.command import run
    from epd.cli.environment import openai_api_key

    return run(args, openai_api_key())


def _keys(args: argparse.Namespace) -> int:
    from epd.wire.curve import generate

    generate(args.folder)
    print(f"made {args.folder}: copy it to every machine, and set wire.curve_dir to it there")
    return 0
