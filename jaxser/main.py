"""Train the folds and seeds of a config and write the report.

    python -m jaxser.main --config=configs/mcsan.py                  # the demo corpus, made if it is missing
    python -m jaxser.main --config=configs/mcsan.py:iemocap          # a prepared corpus
    python -m jaxser.main --config=configs/mcsan.py:iemocap --config.variant=no_cross --config.seeds=10

To resume an interrupted run, run the same command again. Exit status: 0 done, 1 failed, 2 wrong usage.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from jaxser import cli
from jaxser.cli import CACHE_DIR, RESUMABLE, enable_compilation_cache, fail, run_command

with cli.importing("jaxser"):
    from absl import app, flags, logging
    from ml_collections import ConfigDict, config_flags

    from jaxser.types import InputError, UsageError

if TYPE_CHECKING:
    from jaxser.evaluation.results import RunResults
    from jaxser.types import Dataset

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "FILE.py:DATASET, such as configs/mcsan.py:iemocap", lock_config=True
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "folder of the run; default: runs/<model>-<variant>-<dataset>"
)
_DATA_DIR = flags.DEFINE_string("data_dir", "data", "folder of the prepared datasets")
_STRATEGY = flags.DEFINE_string(
    "strategy",
    "",
    "how replicas are trained: map (one after another on each device), vmap (all at once), data (one after another, "
    "each batch spread over all devices, for a single large run); default: map on CPUs, vmap on GPUs and TPUs",
)
_DATA_BUDGET = flags.DEFINE_integer(
    "data_budget",
    0,
    "MB of a device's memory for the dataset, which is streamed if it is larger; default: half of the free memory",
    lower_bound=0,
)
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed",
    True,
    "join the other processes of a cluster (TPU pod, SLURM, Open MPI, Kubernetes) if there is one",
)
_JOIN_TIMEOUT = flags.DEFINE_float(
    "join_timeout",
    120.0,
    "seconds to wait for the other processes of a cluster",
    lower_bound=1,
)
_CACHE_DIR = flags.DEFINE_string("cache_dir", CACHE_DIR, "folder for compiled programs; empty: keep none")
_TWIN = flags.DEFINE_bool(
    "twin",
    False,
    "also train on the speaker-disjoint twin of the folds (config.protocol.twin=speaker), in <workdir>-twin, and print "
    "what shared speakers are worth",
)
_OWN = (_CONFIG, _WORKDIR, _DATA_DIR, _STRATEGY, _DATA_BUDGET, _DISTRIBUTED, _JOIN_TIMEOUT, _CACHE_DIR, _TWIN)

_NOT_CONFIGS = ("common", "baselines")
"""Modules of `jaxser.configs` that are not configs."""


def run() -> None:
    """Run the command `jaxser-train`, which is also `python -m jaxser.main`."""
    app.run(_main, flags_parser=_parse)


def _main(_: list[str]) -> int:
    return run_command("jaxser", _train, output=_WORKDIR.value or "runs", stopped=RESUMABLE)


def _train() -> int:
    from jaxser import experiment  # it imports JAX, which takes seconds
    from jaxser.config import check_strategy, datasets_of, resolve
    from jaxser.evaluation import fold_twins
    from jaxser.training import multihost

    logging.set_verbosity(logging.FATAL)  # of the libraries: what they log as an error, they raise as well
    if _DISTRIBUTED.value:
        multihost.join(_JOIN_TIMEOUT.value, lambda line: cli.note(f"jaxser: {line}"))
    is_primary = multihost.is_primary()
    if not is_primary:
        warnings.simplefilter("ignore")
    config = resolve(_CONFIG.value, config_flags.get_override_values(flags.FLAGS[_CONFIG.name]))
    check_strategy(_STRATEGY.value)
    if _TWIN.value and config.protocol.twin:
        raise UsageError(
            f"--twin: config.protocol.twin={config.protocol.twin} is a twin already; give one of both"
        )
    enable_compilation_cache(_CACHE_DIR.value)
    log = cli.log if is_primary else lambda text: None
    dataset = experiment.load_dataset(config, Path(_DATA_DIR.value), log)
    folder = Path(_WORKDIR.value or f"runs/{config.model.name}-{config.variant}-{datasets_of(config).title}")
    status = _train_one(config, dataset, folder, log)
    if _TWIN.value:
        twin, config.protocol.twin = folder.with_name(f"{folder.name}-twin"), "speaker"
        status = max(status, _train_one(config, dataset, twin, log))
        if is_primary and status == 0:
            log(str(fold_twins.read_worth(folder, twin)))
    return status


def _train_one(config: ConfigDict, dataset: Dataset, folder: Path, log: Callable[[str], None]) -> int:
    """Train one run, write its report and return the exit status."""
    from jaxser import experiment, report
    from jaxser.evaluation.environment import command_line
    from jaxser.training import multihost

    results = experiment.run_experiment(
        config,
        dataset,
        folder,
        strategy=_STRATEGY.value,
        budget=_DATA_BUDGET.value * 2**20,
        command=command_line(["python", "-m", "jaxser.main", *sys.argv[1:]]),
        log=log,
    )
    if not multihost.is_primary():
        return 0
    page = report.write(folder)
    log(_test_scores(results))
    for line in _scores_by_corpus(results):
        log(line)
    log(f"report: {page}")
    return _report_failures(results)


def _report_failures(results: RunResults) -> int:
    """Warn of replicas whose loss was not finite, and return the exit status: 1 if no replica has a score."""
    from jaxser.evaluation.summary import replica_warnings

    for sentence in replica_warnings(results.reported):
        cli.note(f"jaxser: warning: {sentence}")
    if all(replica.test is None for replica in results.reported):
        remedy = "lower --config.hyper.learning_rate, or set --config.optimizer.clip=global_norm"
        return fail("jaxser", f"no replica has a score, since no loss was finite: {remedy}", 1)
    return 0


def _test_scores(results: RunResults) -> str:
    """Return the mean test scores in one line."""
    from jaxser.evaluation.metrics import describe

    summary = results.summary

    def shown(name: str) -> str:
        metric, mean, std = describe(name), summary.mean[name], summary.std[name]
        cells = ("-" if value is None else metric.show(value) for value in (mean, std))
        return f"{metric.title} {' ± '.join(cells)}"

    scores = "  ".join(map(shown, results.target.compared))
    mark = " (demo numbers: synthetic speech)" if results.synthetic else ""
    return f"test  {scores}  (± over {summary.std_over}){mark}"


def _scores_by_corpus(results: RunResults) -> list[str]:
    """Return the mean test scores of each corpus, one line each, if there are several."""
    from jaxser.evaluation.metrics import describe

    if len(results.by_corpus) < 2:
        return []

    def shown(name: str, value: float | None) -> str:
        return f"{describe(name).title} {'-' if value is None else describe(name).show(value)}"

    compared = results.target.compared
    return [
        f"  on {corpus}  {'  '.join(shown(name, scores[name]) for name in compared)}"
        for corpus, scores in results.by_corpus.items()
    ]


def _parse(arguments: list[str]) -> list[str]:
    """Parse the flags; an error is one line, and `--help` shows the fields of the config."""
    try:
        if any(argument in ("-h", "--help") for argument in arguments[1:]):
            print(_help(arguments))
            sys.exit(0)
        rest = flags.FLAGS(_completed(arguments))
        if len(rest) > 1:
            raise UsageError(f"unexpected argument {rest[1]!r}; flags are --name=value")
        if _CONFIG.value is None:
            raise UsageError("--config is missing, such as --config=configs/mcsan.py (--help says more)")
        _checked_config()
    except (AttributeError, KeyError) as error:
        sys.exit(fail("jaxser", f"{_field_error(error)} (--help lists all fields)", 2))
    except SyntaxError as error:
        sys.exit(fail("jaxser", f"{error.filename}:{error.lineno}: {error.msg}; correct the config file", 2))
    except InputError as error:
        sys.exit(fail("jaxser", error, 1))
    except KeyboardInterrupt:
        sys.exit(fail("jaxser", "stopped", 1))
    except (flags.Error, ValueError, TypeError, OSError) as error:
        sys.exit(fail("jaxser", " ".join(str(error).split()), 2))
    return rest


def _checked_config() -> ConfigDict:
    config = _CONFIG.value
    if not isinstance(config, ConfigDict) or "variants" not in config:
        raise UsageError(
            "--config: get_config() of the file must return a ConfigDict with variants; see configs/mcsan.py"
        )
    return config


def _field_error(error: BaseException) -> str:
    """Return the message of ml_collections about an unknown field, which it wraps several times."""
    while error.args and isinstance(error.args[0], BaseException):
        error = error.args[0]
    message = " ".join(str(error.args[0] if error.args else error).split())
    if "has no attribute 'get_config'" in message:
        return "--config: the file has no function get_config"
    return re.sub(r"^'(\w+)'", r"the config has no field '\1'.", message).removesuffix(".")


def _completed(arguments: list[str]) -> list[str]:
    """Complete the value of --config: the path of the file, and the corpus of a prepared dataset."""
    data_dir = _data_dir(arguments)
    completed, rest = arguments[:1], iter(arguments[1:])
    for argument in rest:
        flag, equals, value = argument.partition("=")
        if flag not in ("--config", "-config"):
            completed.append(argument)
        elif equals or (value := next(rest, "")):
            completed.append(f"--config={_complete_config(value, data_dir)}")
        else:
            completed.append(argument)  # without a value, which is an error of its own
    return completed


def _data_dir(arguments: list[str]) -> Path:
    """Return the value of --data_dir, which is needed before the config file is evaluated."""
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
    """Return the path of a config file: the user's own, or else the installed one of that name."""
    from jaxser import configs

    installed = Path(configs.__file__).parent
    for path in (Path(name), installed / Path(name).name, installed / f"{Path(name).name}.py"):
        if path.is_file():
            return str(path)
    names = sorted(path.name for path in installed.glob("[!_]*.py") if path.stem not in _NOT_CONFIGS)
    raise UsageError(f"--config={name}: no such file; installed are configs/{{{','.join(names)}}}")


def _help(arguments: list[str]) -> str:
    lines = [__doc__.strip(), "", *(f"  --{flag.name}: {flags.FLAGS[flag.name].help}" for flag in _OWN)]
    given = [argument for argument in _completed(arguments) if argument.startswith("--config=")]
    flags.FLAGS([arguments[0], *(given or _completed(["", "--config=configs/mcsan.py"])[1:])])
    config = _checked_config()
    lines += [
        "",
        f"variants (--config.variant=NAME): {', '.join(config.variants)}",
        "",
        "fields and their values:",
    ]
    with config.unlocked():
        for name in {"variants", "published"} & {*config.keys()}:
            del config[name]
    return "\n".join([*lines, *(f"  --config.{line}" for line in _fields(config))])


def _fields(config: ConfigDict, prefix: str = "") -> list[str]:
    lines = []
    for name, value in config.items():
        if hasattr(value, "items"):
            lines += _fields(value, f"{prefix}{name}.")
        else:
            lines.append(f"{prefix}{name}={value!r}")
    return lines


if __name__ == "__main__":
    run()
