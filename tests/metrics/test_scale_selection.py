from hrseg.metrics.scale_selection import scale_report


def test_the_cheapest_subset_is_within_a_tenth_of_a_point():
    miou = {(0.5,): 0.60, (1.0,): 0.70, (2.0,): 0.71, (0.5, 1.0): 0.7494, (0.5, 2.0): 0.7489,
            (1.0, 2.0): 0.7495, (0.5, 1.0, 2.0): 0.75}  # fmt: skip
    report = scale_report(miou, {0.5: 25, 1.0: 100, 2.0: 400})
    assert report["cheapest"] == {"scales": [0.5, 1.0], "miou": 0.7494, "cost": 125 / 525}
    assert [row["scales"] for row in report["prefixes"]] == [[0.5], [0.5, 1.0], [0.5, 1.0, 2.0]]
    assert [row["cost"] for row in report["subsets"]] == [
        cost / 525 for cost in (25, 100, 125, 400, 425, 500, 525)
    ]
