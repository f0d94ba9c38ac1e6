"""Everything a GPU machine should run, in under nine minutes: `python -m bench.gpu --out DIR`.

    python -m bench.gpu --build --wheels WHEELS --out DIR    build the extension for this GPU first, without a network
    python -m bench.gpu --dry-run --out DIR                  the same code at tiny sizes on the CPU

Each stage is a process of its own with a time limit, so that a crash or a hang spoils that stage only. Stages that time
nothing run side by side, the others one at a time. DIR gets three files, renewed after every stage: gpu.json (all
figures), gpu.md (the tables), gpu.log (what the stages printed).
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.gpu_commands import Command, commands
from bench.gpu_report import markdown

_LOG_BYTES = 100_000  # of each stage
_TOOLS = "/usr/local/cuda/bin"  # where nvcc and compute-sanitizer are when they are not on PATH


def run_limited(command: list[str], seconds: float, log: Path, environment: dict[str, str], folder: Path) -> int | None:
    """Its exit status, or None if it was stopped at its limit, with everything it had started."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env=environment, cwd=folder, start_new_session=True
        )
        try:
            return process.wait(seconds)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                return None
            raise


def _outcome(status: int | None, limit: float, allowed: tuple[int, ...]) -> str:
    if status is None:
        return f"stopped at its limit of {limit:.0f} s"
    return "ok" if status in allowed else f"failed with exit status {status}"


def _read_rows(path: Path) -> list[dict]:
    """One JSON object a line; the last may be cut short."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def _tail(log: Path) -> bytes:
    text = log.read_bytes()
    return text if len(text) <= _LOG_BYTES else b"[the beginning is left out]\n" + text[-_LOG_BYTES:]


def environment_for(options: argparse.Namespace) -> dict[str, str]:
    """The installed package goes before the source tree, whose eqflow has no compiled module."""
    source = str(Path(__file__).resolve().parent.parent)
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    inherited = os.environ.get("PYTHONPATH")
    paths = [str(options.site)] if options.site else []
    environment["PYTHONPATH"] = os.pathsep.join([*paths, source, *([inherited] if inherited else [])])
    environment["PYTHONSAFEPATH"] = "1"  # `python -m` must not put the source tree first
    if os.path.isdir(_TOOLS):
        environment["PATH"] = environment.get("PATH", "") + os.pathsep + _TOOLS
    return environment


def run_stage(stage: Command, left: float, environment: dict[str, str], scratch: Path, log: Path) -> dict:
    """What came of one stage; its log is added to `log`."""
    limit, rows, text = min(stage.limit, left), scratch / f"{stage.name}.jsonl", scratch / f"{stage.name}.log"
    begin = time.monotonic()
    source = Path(__file__).resolve().parent.parent
    if stage.skipped:
        return {"stage": stage.name, "outcome": f"skipped: {stage.skipped}", "seconds": 0, "rows": []}
    if left < 5:
        return {"stage": stage.name, "outcome": "skipped: no time left", "seconds": 0, "rows": []}
    try:
        words = [*stage.words, "--rows", str(rows)] if stage.has_rows else stage.words
        status = run_limited(words, limit, text, environment | stage.more, source)
        outcome = _outcome(status, limit, stage.allowed)
    except OSError as error:
        outcome = f"failed: {error}"
        text.write_text("")
    with log.open("ab") as file:
        file.write(f"\n===== {stage.name}: {outcome}\n$ {' '.join(stage.words)}\n".encode() + _tail(text))
    last = text.read_text(errors="replace").strip().splitlines()[-1:] or [""]
    seconds = round(time.monotonic() - begin, 1)
    return {
        "stage": stage.name,
        "outcome": outcome,
        "seconds": seconds,
        "last_line": last[0][:300],
        "rows": _read_rows(rows),
    }


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options; unknown stages are an error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the three files go")
    parser.add_argument("--build", action="store_true", help="build and install the package into --site first")
    parser.add_argument("--wheels", type=Path, metavar="DIR", help="wheels to install first, without a network")
    parser.add_argument("--site", type=Path, metavar="DIR", help="where --build installs (default: a temporary folder)")
    parser.add_argument("--minutes", type=float, default=8.8, help="for all stages together (default 8.8)")
    parser.add_argument("--only", nargs="+", metavar="STAGE", help="run these stages only")
    parser.add_argument("--skip", nargs="+", default=[], metavar="STAGE", help="leave these out")
    parser.add_argument("--dry-run", action="store_true", help="the same code on the CPU at tiny sizes")
    options = parser.parse_args(arguments)
    options.device = "cpu" if options.dry_run else "cuda"
    options.out = options.out.resolve()
    if options.build and options.site is None:
        options.site = Path(tempfile.gettempdir(), "eqflow-bench-site")
    for name in ("site", "wheels"):
        if getattr(options, name):
            setattr(options, name, getattr(options, name).resolve())
    known = [stage.name for stage in commands(options)]
    unknown = [name for name in [*(options.only or []), *options.skip] if name not in known]
    if unknown:
        parser.error(f"there is no stage {', '.join(unknown)}; the stages are {', '.join(known)}")
    return options


def _report(result: dict, results: list[dict], options: argparse.Namespace) -> None:
    words = f"{result['stage']:12} {result['seconds']:6.1f} s  {result['outcome']}"
    print(f"{words}  {result.get('last_line', '')[:80]}", flush=True)
    (options.out / "gpu.json").write_text(json.dumps({"device": options.device, "stages": results}, indent=1) + "\n")
    (options.out / "gpu.md").write_text(markdown(results))


def main(arguments: list[str] | None = None) -> int:
    """Run the stages; 0 if all went well."""
    options = parse(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    stages = [
        s for s in commands(options) if s.name not in options.skip and (not options.only or s.name in options.only)
    ]
    environment, end = environment_for(options), time.monotonic() + 60 * options.minutes
    log, results = options.out / "gpu.log", []
    log.write_bytes(b"")
    with tempfile.TemporaryDirectory() as scratch:

        def run(stage: Command) -> dict:
            return run_stage(stage, end - time.monotonic(), environment, Path(scratch), log)

        for beside, group in itertools.groupby(stages, key=lambda stage: stage.beside):
            with ThreadPoolExecutor(8 if beside else 1) as pool:
                for result in pool.map(run, group):
                    results.append(result)
                    _report(result, results, options)
    print((options.out / "gpu.md").read_text())
    return int(any(not result["outcome"].startswith(("ok", "skipped")) for result in results))


if __name__ == "__main__":
    sys.exit(main())
