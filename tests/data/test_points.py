import h5py
import numpy
import pytest
import torch

from eqflow.data.points import Cloud, PointsError, check_points, read_points


def refused(function, *arguments, **options):
    with pytest.raises(PointsError) as error:
        function(*arguments, **options)
    return str(error.value)


def test_arrays_in_other_files(tmp_path):
    points = numpy.arange(6, dtype="int16").reshape(3, 2)
    numpy.save(tmp_path / "points.npy", points)
    with h5py.File(tmp_path / "points.h5", "w") as file:
        file["run/positions"] = points
        file["times"] = numpy.arange(3)
    for name in ("points.npy", "points.h5"):
        found = read_points(tmp_path / name, columns=["2"])
        assert found.values.tolist() == [[1], [3], [5]] and found.names == ("x2",)
    numpy.save(tmp_path / "fields.npy", numpy.ones((5, 2, 3, 4)))
    assert read_points(tmp_path / "fields.npy").values.shape == (5, 2, 3, 4)


def test_datasets_of_an_hdf5_file_are_listed(tmp_path):
    path = tmp_path / "two.hdf5"
    with h5py.File(path, "w") as file:
        file["a"], file["b"], file["t"] = numpy.ones((4, 2)), numpy.zeros((5, 3)), numpy.arange(4)
    assert "found a [4, 2], b [5, 3], t [4]: say which with dataset=a" in refused(read_points, path)
    assert "holds a [4, 2], b [5, 3], t [4]: give one" in refused(read_points, path, dataset="c")
    assert "got [4]" in refused(read_points, path, dataset="t")
    assert read_points(path, dataset="/b").values.shape == (5, 3)
    with h5py.File(path, "w"):
        pass
    assert "which holds none" in refused(read_points, path)


def test_files_that_hold_no_points(tmp_path):
    for name in ("broken.npy", "broken.h5"):
        (tmp_path / name).write_text("nonsense")
        assert "cannot read points" in refused(read_points, tmp_path / name)
    numpy.save(tmp_path / "line.npy", numpy.ones(3))
    assert "got [3]: use array[:, None]" in refused(read_points, tmp_path / "line.npy")
    numpy.save(tmp_path / "words.npy", numpy.array([["a"]]))
    assert "expected real numbers" in refused(read_points, tmp_path / "words.npy")
    assert "no such file" in refused(read_points, tmp_path / "none.csv")
    assert "got" in refused(read_points, tmp_path / "points.xlsx")
    (tmp_path / "points.csv").write_text("1,2\n")
    assert "HDF5 file only" in refused(read_points, tmp_path / "points.csv", dataset="a")


@pytest.fixture
def cloud():
    values = torch.randn(400, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return Cloud(values, ("x", "y", "z"), ())


def changed(cloud, place, values):
    points = cloud.values.clone()
    points[:, place] = torch.as_tensor(values, dtype=torch.float64)
    return cloud._replace(values=points)


def test_points_that_are_good_come_back_as_they_are(cloud):
    found = check_points(cloud)
    assert torch.equal(found.values, cloud.values) and found.notes == (
        "with 400 points the answer is rough: 1,000 or more are better",
    )


def test_points_that_no_density_can_be_learned_from(cloud):
    assert "got 99" in refused(check_points, cloud._replace(values=cloud.values[:99]))
    one = cloud._replace(values=cloud.values[:, :1])
    assert "on a line only a flow at rest" in refused(check_points, one)
    assert "y is 0.1 in every row: leave it out with columns=x,z" in refused(check_points, changed(cloud, 1, 0.1))
    same = changed(cloud, 2, 3 - 2 * cloud.values[:, 0])
    assert "z follows from x on a straight line: leave it out with columns=x,y" in refused(check_points, same)
    fields = cloud._replace(values=torch.ones(4, 1, 2, 2, dtype=torch.float64))
    assert "got fields [4, 1, 2, 2]" in refused(check_points, fields)


def test_an_offset_is_no_constant(cloud):
    check_points(changed(cloud, 1, 1e6 + cloud.values[:, 1]))
    assert "in every row" in refused(check_points, changed(cloud, 1, torch.full((400,), 1e6) + 1e-9))


def test_rows_that_repeat(cloud):
    many = cloud._replace(values=torch.cat([cloud.values, cloud.values[:100]]))
    said = refused(check_points, many)
    assert "row 401 repeats row 1, and 99 more rows an earlier one" in said and "repeats=drop" in said
    assert torch.equal(check_points(many, repeats="drop").values, cloud.values)
    assert torch.equal(check_points(many, repeats="keep").values, many.values)
    few = cloud._replace(values=torch.cat([cloud.values, cloud.values[7:8]]))
    assert "row 401 repeats row 8: kept" in check_points(few).notes


def test_zeros_of_both_signs_repeat(cloud):
    values = cloud.values.clone()
    values[:50] = torch.tensor([0.0, 1, 2])
    values[:25, 0] = -0.0
    assert "49 more rows" not in refused(check_points, cloud._replace(values=values))
    assert "and 48 more rows" in refused(check_points, cloud._replace(values=values))


def test_a_rising_column_is_pointed_out(cloud):
    notes = check_points(changed(cloud, 0, torch.arange(400))).notes
    assert any("x rises from row to row" in note and "columns=y,z" in note for note in notes)
