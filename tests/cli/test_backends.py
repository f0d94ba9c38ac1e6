import json

import torch
from typer.testing import CliRunner

from eqflow import ops
from eqflow.cli import app


def test_the_json_has_every_operator_backend_and_device():
    result = CliRunner().invoke(app, ["backends", "--json"])
    facts = json.loads(result.stdout)
    assert result.exit_code == 0 and {"gray_scott", "normal"} <= set(facts["operators"])
    for rows in facts["operators"].values():
        assert set(rows) == {"reference", "native", "triton"}
        assert rows["reference"]["cpu"] is None
        assert rows["native"]["cpu"] == ops.backends("cpu")["native"]
        assert (rows["native"]["cuda"] is None) == (ops.backends("cuda")["native"] is None)
    assert facts["cpu"]["threads"] == torch.get_num_threads()
    assert facts["cpu"]["instruction_set"] in facts["cpu"]["instruction_sets"]
    assert facts["versions"]["torch"] == torch.__version__


def test_the_table_gives_a_reason_for_every_no():
    result = CliRunner().invoke(app, ["backends"])
    assert result.exit_code == 0
    facts = json.loads(CliRunner().invoke(app, ["backends", "--json"]).stdout)
    reasons = {reason for rows in facts["operators"].values() for row in rows.values() for reason in row.values()}
    assert all(reason in result.stdout for reason in reasons - {None})
    assert facts["cpu"]["instruction_set"] in result.stdout
