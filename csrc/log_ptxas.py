"""Compiler launcher: runs the CUDA compiler and keeps what ptxas said of registers and spills, for the tests to read.

Usage: log_ptxas.py LOG -- COMMAND... Every source writes LOG.<name>.cu, and the parts are joined into LOG, so that a
rebuild of one file loses nothing of the others.
"""

import re
import subprocess
import sys
from pathlib import Path

log, _, *command = sys.argv[1:]
result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
said, rest = [], []
for line in result.stdout.splitlines():
    (said if re.search(r"ptxas info|bytes stack frame|bytes spill", line) else rest).append(line)
if rest:
    print("\n".join(rest), file=sys.stderr)
if said:
    source = Path(next((word for word in command if word.endswith(".cu")), "unknown")).name
    Path(f"{log}.{source}").write_text("\n".join(said) + "\n")
    parts = sorted(Path(log).parent.glob(Path(log).name + ".*"))
    Path(log).write_text("".join(part.read_text() for part in parts))
sys.exit(result.returncode)
