"""Genes as weighted means of regions: what is read, what is refused, what has a value."""

from __future__ import annotations

import numpy as np
import pytest

from yeast_get.config import settings_from_dict
from yeast_get.data.expression_data import load_expression_data
from yeast_get.errors import DataError

FOLDER = {
    "regions": "region_id,motif_a\nr1,1\nr2,2\nr3,3\n",
    "samples": "sample_id,temperature\ns1,30\ns2,37\n",
    "expression": "region_id,s1,s2\nr1,1,2\nr2,3,4\nr3,5,\n",
    "genes": "gene_id,region_id,weight\nG1,r1,1\nG1,r2,3\nG2,r3,\nG3,r3,2\nG3,r1,2\n",
}


@pytest.fixture
def load(tmp_path):
    def load(genes, other=None, **data):
        for name, text in {**FOLDER, "genes": genes, **(other or {})}.items():
            (tmp_path / f"{name}.csv").write_text(text)
        values = {"data": {"path": str(tmp_path), **data}}
        return load_expression_data(settings_from_dict(values, "x"))

    return load


def test_a_gene_is_the_weighted_mean_of_its_regions_where_all_are_measured(load):
    data = load(FOLDER["genes"])
    assert not any("genes" in line for line in data.warnings)
    y_pred = np.arange(6.0)
    true, pred, gene, sample = data.genes.measured_and_predicted(
        data.target[:, 0], y_pred, data.region_index, data.sample_index, 2
    )
    said = {
        (data.genes.gene_id[g], s): (t, p)
        for g, s, t, p in zip(gene, sample, true, pred, strict=True)
    }
    assert said == {  # r3 is blank in s2, so that G2 and G3 have no value there
        ("G1", 0): (pytest.approx((1 + 3 * 3) / 4), pytest.approx((0 + 3 * 2) / 4)),
        ("G1", 1): (pytest.approx((2 + 3 * 4) / 4), pytest.approx((1 + 3 * 3) / 4)),
        ("G2", 0): (5, 4),
        ("G3", 0): (pytest.approx(3), pytest.approx(2)),
    }


@pytest.mark.parametrize(("genes", "said"), [
    ("gene_id,region_id\nG1,r9\n", "row 2, column region_id: region 'r9' is not in regions"),
    ("gene_id,region_id\nG1,r1\nG1,r1\n", "row 3, column region_id: 'r1' stands twice"),
    ("gene_id,region_id,weight\nG1,r1,-1\n", "row 2, column weight: '-1' is not above 0"),
    ("gene_id,region_id,weight\nG1,r1,much\n", "row 2, column weight: 'much' is not a number"),
    ("gene_id,region_id\n,r1\n", "row 2, column gene_id: is blank"),
    ("gene_id,weight\nG1,1\n", "has no column region_id"),
])  # fmt: skip
def test_what_is_wrong_with_it_is_named(load, genes, said):
    with pytest.raises(DataError) as caught:
        load(genes)
    assert said in str(caught.value.problems[0])
    assert "genes.csv" in str(caught.value.problems[0])


def test_a_gene_with_a_bad_row_or_a_region_that_was_left_out_has_no_value(load, tmp_path):
    skip = {"on_bad_row": "skip", "max_skipped": 0.5}
    bad = "gene_id,region_id,weight\nG1,r1,1\nG1,r2,bad\nG2,r2,1\nG3,r3,1\n"
    data = load(bad, **skip)
    assert data.genes.gene_id.tolist() == ["G1", "G2", "G3"]
    assert data.genes.weights.toarray().tolist() == [[0.5, 0, 0], [0, 1, 0], [0, 0, 1]]
    good = "gene_id,region_id,weight\nG1,r1,1\nG1,r2,1\nG2,r2,1\n"
    data = load(good, {"regions": FOLDER["regions"].replace("r1,1", "r1,what")}, **skip)
    assert data.region_id.tolist() == ["r2", "r3"]
    assert data.genes.weights.toarray().tolist() == [[0.5, 0], [1, 0]]
    true, _, gene, _ = data.genes.measured_and_predicted(
        data.target[:, 0], data.target[:, 0], data.region_index, data.sample_index, 2
    )
    assert set(gene) == {1}
    assert true.tolist() == [3, 4]


def test_a_region_that_stands_twice_is_one_line_also_with_genes(load):
    twice = {"regions": FOLDER["regions"] + "r3,3\n"}
    with pytest.raises(DataError, match="'r3' stands twice"):
        load(FOLDER["genes"], twice)
