"""Bad input gets one sentence that names the value and what was expected."""

import pytest

from mora_peft.operators import LAYOUTS, OPERATORS, check_operator, make_operator

GOOD = {"k": 8, "d": 8, "r_hat": 4}


@pytest.mark.parametrize("name", ["rotary", "", 6, None])
def test_an_unknown_operator_is_named_beside_the_known_ones(name):
    with pytest.raises(ValueError, match="Unknown operator") as error:
        make_operator(name, **GOOD)
    for text in (repr(name), *OPERATORS):
        assert text in str(error.value)


def test_an_unknown_layout_is_named_beside_the_known_ones():
    with pytest.raises(ValueError, match="Unknown layout 'tiled'") as error:
        make_operator("sharing", layout="tiled", **GOOD)
    for layout in LAYOUTS:
        assert layout in str(error.value)


@pytest.mark.parametrize("name", sorted(set(OPERATORS) - {"sharing"}))
def test_layouts_belong_to_sharing(name):
    with pytest.raises(ValueError, match=rf"`layout` belongs to the operator 'sharing'.*{name}.*leave it out"):
        make_operator(name, layout="strided-tiled", **GOOD)


@pytest.mark.parametrize("name", ["sharing", "truncation"])
def test_folding_belongs_to_operators_that_cut_into_rows(name):
    with pytest.raises(ValueError, match=rf"`fold` belongs to 'rotation' and 'decoupling', not to '{name}'"):
        make_operator(name, fold=True, **GOOD)
    make_operator(name, fold=False, **GOOD)


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("r_hat", [0, -2, 2.0, "4", None])
def test_the_side_is_a_whole_number_of_one_or_more(name, r_hat):
    with pytest.raises(ValueError, match="`r_hat`, the side of M, must be a whole number of 1 or more") as error:
        make_operator(name, k=8, d=8, r_hat=r_hat)
    assert repr(r_hat) in str(error.value)


@pytest.mark.parametrize("r_hat", [1, 3, 7])
def test_rotation_refuses_an_odd_side(r_hat):
    with pytest.raises(ValueError, match=f"must be even, but is {r_hat}"):
        make_operator("rotation", k=8, d=8, r_hat=r_hat)


def test_checking_alone_refuses_what_making_refuses():
    for arguments in [("no",), ("sharing", "no"), ("rotation", "strided-tiled"), ("truncation", None, True)]:
        with pytest.raises(ValueError) as checked:
            check_operator(*arguments)
        name, layout, fold = (*arguments, None, None)[:3]
        with pytest.raises(ValueError) as made:
            make_operator(name, layout=layout, fold=fold, **GOOD)
        assert str(checked.value) == str(made.value)
