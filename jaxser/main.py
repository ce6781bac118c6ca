"""Train a table's fold x seed grid and write its report.

    python -m jaxser.main --config=configs/mcsan.py                  # the demo corpus, made where it is missing
    python -m jaxser.main --config=configs/mcsan.py:iemocap          # a prepared corpus
    python -m jaxser.main --config=configs/mcsan.py:iemocap --config.variant=no_cross --config.seeds=10

An interrupted run goes on with the same command. Exit status: 0 done, 1 failed, 2 wrong usage.
"""

from __future__ import annotations

import re
import sys
import warnings
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from jaxser.cli import CACHE_DIR, exit_status, fail, keep_programs
from jaxser.types import UsageError

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "FILE.py:DATASET, such as configs/mcsan.py:iemocap", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "the run's folder; default runs/<model>-<variant>-<dataset>")
_DATA_DIR = flags.DEFINE_string("data_dir", "data", "where prepared datasets are")
_STRATEGY = flags.DEFINE_string(
    "strategy",
    "",
    "how replicas run: map (on each device one by one), vmap (side by side), data (one by one, the batches of each "
    "spread over all devices: for one large run); default by device",
)
_DATA_BUDGET = flags.DEFINE_integer(
    "data_budget",
    0,
    "MB of a device's memory for the dataset, which streams where it is larger; default: half of what is free",
    lower_bound=0,
)
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed",
    True,
    "join the processes of a cluster (TPU pod, SLURM, Open MPI, Kubernetes) where one is found",
)
_CACHE_DIR = flags.DEFINE_string(
    "cache_dir",
    CACHE_DIR,
    "compiled programs are kept here; empty: nowhere",
)
_OWN = (_CONFIG, _WORKDIR, _DATA_DIR, _STRATEGY, _DATA_BUDGET, _DISTRIBUTED, _CACHE_DIR)


def run() -> None:
    """The command `jaxser-train`, and `python -m jaxser.main`."""
    app.run(_main, flags_parser=_parse)


def _main(_: list[str]) -> int:
    warnings.formatwarning = lambda message, *_: f"jaxser: warning: {message}\n"
    stopped = "stopped; the same command goes on"
    return exit_status("jaxser", _train, output=_WORKDIR.value or "runs", stopped=stopped)


def _train() -> int:
    from jaxser import experiment, report
    from jaxser.evaluation.run_folder import command_line
    from jaxser.training import multihost

    logging.set_verbosity(logging.WARNING)  # the libraries' own chatter
    if _DISTRIBUTED.value:
        multihost.join()
    if not multihost.leads():
        warnings.simplefilter("ignore")
    config = experiment.resolve(_CONFIG.value, config_flags.get_override_values(flags.FLAGS[_CONFIG.name]))
    experiment.check_strategy(_STRATEGY.value)
    keep_programs(_CACHE_DIR.value)
    say = print if multihost.leads() else lambda text: None
    dataset = experiment.load(config, Path(_DATA_DIR.value), say)
    name = f"{config.model.name}-{config.variant}-{config.dataset}"
    folder = Path(_WORKDIR.value or f"runs/{name}")
    command = command_line(["python", "-m", "jaxser.main", *sys.argv[1:]])
    found = experiment.run(
        config,
        dataset,
        folder,
        strategy=_STRATEGY.value,
        budget=_DATA_BUDGET.value * 2**20,
        command=command,
        say=say,
    )
    if not multihost.leads():
        return 0
    page = report.write(folder)
    mean, std = found["summary"]["mean"], found["summary"]["std"]
    shown = "  ".join(f"{key} {_percent(mean[name])} ± {_percent(std[name])}" for key, name in _SHOWN.items())
    mark = " (demo numbers: synthetic speech)" if found["synthetic"] else ""
    print(f"test  {shown}  (± over {found['summary']['std_over']}){mark}")
    print(f"report: {page}")
    return 0


_SHOWN = {"WA": "wa", "UA": "ua", "weighted F1": "f1_weighted"}


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _parse(arguments: list[str]) -> list[str]:
    """Flags, with a misspelt one in a line; a config's file is looked for here, then among the installed ones."""
    if any(argument in ("-h", "--help") for argument in arguments[1:]):
        print(_help(arguments))
        sys.exit(0)
    try:
        rest = flags.FLAGS(_completed(arguments))
        if len(rest) > 1:
            raise UsageError(f"unexpected argument {rest[1]!r}; flags are --name=value")
        if _CONFIG.value is None:
            raise UsageError("--config is missing, such as --config=configs/mcsan.py (--help says more)")
    except (AttributeError, KeyError) as error:
        sys.exit(fail("jaxser", f"{_no_field(error)} (--help lists all fields)", 2))
    except (flags.Error, ValueError, TypeError, OSError) as error:
        sys.exit(fail("jaxser", " ".join(str(error).split()), 2))
    return rest


def _no_field(error: BaseException) -> str:
    """ml_collections' own sentence about a field that the config has not, which it wraps several times."""
    while error.args and isinstance(error.args[0], BaseException):
        error = error.args[0]
    said = " ".join(str(error.args[0] if error.args else error).split())
    return re.sub(r"^'(\w+)'", r"the config has no field '\1'.", said).removesuffix(".")


def _completed(arguments: list[str]) -> list[str]:
    """Completes the value of --config: the path of the file, and the corpus of a prepared dataset."""
    data_dir, completed = _data_dir(arguments), list(arguments)
    for place, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if flag in ("--config", "-config") and equals:
            completed[place] = f"{flag}={_complete_config(value, data_dir)}"
        elif arguments[place - 1] in ("--config", "-config") and place > 1:
            completed[place] = _complete_config(argument, data_dir)
    return completed


def _data_dir(arguments: list[str]) -> Path:
    """Reads --data_dir alone, which is needed before the config file is evaluated."""
    values = flags.FlagValues()
    flags.DEFINE_string("data_dir", _DATA_DIR.default, "", flag_values=values)
    values.set_gnu_getopt()
    values(arguments, known_only=True)
    return Path(values.data_dir)


def _complete_config(value: str, data_dir: Path) -> str:
    from jaxser.data.dataset import with_corpus

    file, colon, dataset = value.partition(":")
    return f"{_config_file(file)}{colon}{with_corpus(dataset, data_dir)}"


def _config_file(name: str) -> str:
    from jaxser import configs

    installed = Path(configs.__file__).parent
    for path in (Path(name), installed / Path(name).name, installed / f"{Path(name).name}.py"):
        if path.is_file():
            return str(path)
    names = sorted(
        path.name for path in installed.glob("[!_]*.py") if path.stem not in ("common", "baselines")
    )
    raise UsageError(f"--config={name}: no such file; installed are configs/{{{','.join(names)}}}")


def _help(arguments: list[str]) -> str:
    lines = [__doc__.strip(), "", *(f"  --{flag.name}: {flags.FLAGS[flag.name].help}" for flag in _OWN)]
    named = [argument for argument in arguments if argument.startswith("--config=")]
    flags.FLAGS(_completed([arguments[0], named[0] if named else "--config=configs/mcsan.py"]))
    config = _CONFIG.value
    lines += [
        "",
        f"variants (--config.variant=NAME): {', '.join(config.variants)}",
        "",
        "fields and their values:",
    ]
    with config.unlocked():
        del config.variants
    return "\n".join([*lines, *(f"  --config.{line}" for line in _fields(config))])


def _fields(config, prefix: str = "") -> list[str]:
    lines = []
    for name, value in config.items():
        if hasattr(value, "items"):
            lines += _fields(value, f"{prefix}{name}.")
        else:
            lines.append(f"{prefix}{name}={value!r}")
    return lines


if __name__ == "__main__":
    run()
