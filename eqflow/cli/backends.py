"""`eqflow backends`: what runs here, and why not the rest."""

from __future__ import annotations

import json
import os
import platform
from typing import Annotated, Any

import typer


def backends(
    as_json: Annotated[bool, typer.Option("--json", help="The same for programs.")] = False,
) -> None:
    """What runs here, and why not the rest.

    \b
    eqflow backends
    eqflow backends --json | jq .operators
    """
    facts = survey()
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
    else:
        _show(facts)


def survey() -> dict[str, Any]:
    """Operator x backend x device with the reason where it does not run; processors, threads and versions."""
    from importlib.metadata import PackageNotFoundError, version

    import torch

    from eqflow import ops
    from eqflow.ops import _backend

    def installed(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    native = None if _backend.problem("native", "cpu") else _backend.native_module()
    registered = [getattr(ops, name) for name in ops.__all__ if hasattr(torch.ops.eqflow, name)]
    operators = {
        operator: {
            backend: {device: _reason(operator, backend, device) for device in ("cpu", "cuda")}
            for backend in _backend.BACKENDS
        }
        for operator in sorted({function.__module__.rpartition(".")[2] for function in registered})
    }
    return {
        "operators": operators,
        "cpu": {
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "threads": torch.get_num_threads(),
            "instruction_sets": list(native.cpu_isas()) if native else [],
            "instruction_set": native.cpu_isa() if native else None,
        },
        "gpus": [torch.cuda.get_device_name(gpu) for gpu in range(torch.cuda.device_count())],
        "built_with_cuda": bool(native and native.with_cuda),
        "versions": {
            **{name: installed(name) for name in ("eqflow", "torch", "triton", "numpy", "h5py")},
            "cuda": torch.version.cuda,
            "hip": torch.version.hip,
            "python": platform.python_version(),
        },
    }


def _reason(operator: str, backend: str, device: str) -> str | None:
    """Why a backend does not run an operator on a device, or None."""
    import torch

    from eqflow.ops import _backend

    if backend == "reference":
        there = device == "cpu" or torch.cuda.is_available()
        return None if there else "this PyTorch sees no GPU"
    if reason := _backend.problem(backend, device):
        return reason
    try:
        if backend == "triton":
            _backend.triton_kernels(operator)
        elif not hasattr(_backend.native_module(), operator):
            return "eqflow._C has no such kernel: reinstall eqflow"
    except ImportError as error:
        return f"no such kernel: {error}"
    return None


def _show(facts: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), pad_edge=False)
    for heading in ("operator", "backend", "cpu", "cuda"):
        table.add_column(heading)
    reasons: list[str] = []
    for operator, rows in facts["operators"].items():
        for number, (backend, devices) in enumerate(rows.items()):
            cells = [_cell(reason, reasons) for reason in devices.values()]
            table.add_row(operator if number == 0 else "", backend, *cells)
    console = Console(highlight=False)
    console.print(table)
    for number, reason in enumerate(reasons, 1):
        console.print(f"[dim]{number})[/dim] {reason}", soft_wrap=True)
    cpu, versions = facts["cpu"], facts["versions"]
    sets = " ".join(
        f"[bold]{name}[/bold]" if name == cpu["instruction_set"] else name for name in cpu["instruction_sets"]
    )
    in_use = f"{cpu['instruction_set']} in use" if cpu["instruction_set"] else "no compiled kernels"
    console.print()
    console.print(
        f"cpu       {cpu['threads']} threads on {cpu['cores']} cores; {sets or 'no instruction sets'} ({in_use})"
    )
    gpus = ", ".join(facts["gpus"]) or "none"
    console.print(f"gpu       {gpus}; eqflow built {'with' if facts['built_with_cuda'] else 'without'} CUDA")
    console.print("versions  " + ", ".join(f"{name} {value}" for name, value in versions.items() if value))


def _cell(reason: str | None, reasons: list[str]) -> str:
    if reason is None:
        return "[green]yes[/green]"
    if reason not in reasons:
        reasons.append(reason)
    return f"[dim]no {reasons.index(reason) + 1})[/dim]"
