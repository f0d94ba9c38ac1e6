import dataclasses

import pytest

from eqflow import ops


def test_terms_and_functionals_are_frozen_and_equal_by_value():
    assert len({ops.FieldTerm((1, 2)), ops.FieldTerm((1, 2), "value"), ops.FieldTerm((1, 0), factor=(0, 2))}) == 1
    assert ops.FieldTerm((1, 0), "laplacian", (0, 0)) == ops.FieldTerm((1, 0), "laplacian")
    assert ops.Functionals.up_to(2, 3, 2) == ops.Functionals.up_to(2, 3, 2)
    assert hash(ops.Functionals.up_to(2, 3, 2)) == hash(ops.Functionals.up_to(2, 3, 2))
    with pytest.raises(dataclasses.FrozenInstanceError):
        ops.FieldTerm((1, 2)).operator = "laplacian"
    with pytest.raises(dataclasses.FrozenInstanceError):
        ops.Functionals(monomials=((1,),)).pairs = ()


@pytest.mark.parametrize("channels, degree, pair_degree, count", [(1, 4, 0, 4), (2, 6, 3, 72), (3, 2, 1, 9 + 6)])
def test_up_to_takes_every_monomial_and_pair_once(channels, degree, pair_degree, count):
    functionals = ops.Functionals.up_to(channels, degree, pair_degree)
    assert functionals.count == count and functionals.channels == channels
    assert len(set(functionals.monomials)) == len(functionals.monomials)
    assert {sum(m) for m in functionals.monomials} == set(range(1, degree + 1))


def test_monomials_come_by_degree():
    assert ops.monomials_up_to(2, 2, lowest=0) == ((0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2))
    assert len(ops.monomials_up_to(3, 3)) == 19


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(exponents=()), r"exponents as a tuple of whole numbers from 0 up.*got \(\)"),
        (dict(exponents=2), r"got 2: write \(2, 1\)"),
        (dict(exponents=(1, -1)), r"got \(1, -1\)"),
        (dict(exponents=(1, 0.5)), r"got \(1, 0\.5\)"),
        (dict(exponents=(1, True)), r"got \(1, True\)"),
        (dict(exponents=(1, 0), operator="curl"), "expected operator 'value', 'laplacian'.*got 'curl'"),
        (dict(exponents=(1, 0), factor=(1,)), r"one number of channels, got exponents of \[1, 2\] channels"),
        (dict(exponents=(0, 0), operator="laplacian"), "the laplacian of a constant is zero"),
    ],
)
def test_wrong_terms_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ops.FieldTerm(**arguments)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(), "at least one functional, got none"),
        (dict(monomials=((1, 0), (2,))), r"one number of channels, got exponents of \[1, 2\] channels"),
        (dict(monomials=((0, 0),)), "the mean of a constant never changes"),
        (dict(pairs=(((0, 0), (1, 0)),)), "that of 1 Lap h is zero"),
        (dict(pairs=((1, 0),)), r"pairs\[0\]\[0\] as a tuple"),
        (dict(pairs=(((1, 0),),)), r"pairs\[0\] as \(exponents of g, exponents of h\)"),
        (dict(pairs=(3,)), r"pairs\[0\] as \(exponents of g, exponents of h\), got 3"),
        (dict(monomials=((1, 0), (1, 0))), r"every functional once, got \(1, 0\) twice"),
        (dict(pairs=(((1, 0), (0, 1)), ((0, 1), (1, 0)))), "once, got .* twice: leave one out"),
    ],
)
def test_wrong_functionals_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ops.Functionals(**arguments)
