import pytest
import torch

from eqflow.data.points import PointsError, read_points


def refused(function, *arguments, **options):
    with pytest.raises(PointsError) as error:
        function(*arguments, **options)
    return str(error.value)


def table(folder, text, **options):
    path = folder / "points.csv"
    path.write_text(text, encoding="utf-8")
    return read_points(path, **options)


TABLES = {
    "a header": ("x,y\n1,2\n3,4\n", ("x", "y")),
    "none": ("1,2\n3,4\n", ("x1", "x2")),
    "semicolons": ("1;2\n3;4\n", ("x1", "x2")),
    "tabs": ("x\ty\n1\t2\n3\t4\n", ("x", "y")),
    "spaces": ("  1 2\n3    4\n", ("x1", "x2")),
    "comments": ("# of 2024\n\nx,y\n1,2  # first\n3,4\n", ("x", "y")),
    "quotes": ('"x","y"\n"1","2"\n"3","4"\n', ("x", "y")),
    "a byte order mark": ("\ufeffx,y\n1,2\n3,4\n", ("x", "y")),
    "the index of pandas": (",x,y\n0,1,2\n1,3,4\n", ("x", "y")),
    "numbered columns": (",0,1\n0,1,2\n1,3,4\n", ("0", "1")),
    "numbered columns without index": ("0,1\n1,2\n3,4\n", ("0", "1")),
    "exponents": ("1e0,2E0\n+3.0,4\n", ("x1", "x2")),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_read_whatever_it_looks_like(tmp_path, name):
    text, names = TABLES[name]
    found = table(tmp_path, text)
    assert found.values.tolist() == [[1, 2], [3, 4]] and found.values.dtype == torch.float64 and found.names == names
    assert bool(found.notes) == text.startswith(",")


def test_columns_by_name_and_by_number(tmp_path):
    text = "cell,x,y\nA1,1,2\nA2,3,4\n"
    for columns in (["y", "x"], ["3", "2"]):
        found = table(tmp_path, text, columns=columns)
        assert found.values.tolist() == [[2, 1], [4, 3]] and found.names == ("y", "x")
    assert "which has cell, x, y: there is no z" in refused(table, tmp_path, text, columns=["x", "z"])
    assert "different columns" in refused(table, tmp_path, text, columns=["x", "2"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x,y\n1,2\n3,oak\n", "line 3 has 'oak' in column y: mend it, or drop the row"),
        ("x,y,kind\n1,2,oak\n", "line 2 has 'oak' in column kind: mend it, or drop the row, or take columns=x,y alone"),
        ("x,y\n1,2\n\n3\n", "expected 2 numbers a line"),
        ("x,y\n1,2\n\n3\n", "line 4 has 1"),
        ("x,y\n1,\n", "line 2 has '' in column y"),
        ("x;y\n1,5;2,5\n", "write decimals with a point"),
        ("x,y\n1,2\n3,nan\ninf,2\n", "NaN or infinite values: row 2 in y, and 1 more row too"),
        ("x,y\n", "a header and nothing else"),
        ("# nothing\n", "which is empty"),
    ],
)
def test_what_is_wrong_with_a_table_has_its_line(tmp_path, text, message):
    said = refused(table, tmp_path, text)
    assert message in said and "points.csv" in said and "\n" not in said
