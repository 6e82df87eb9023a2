"""`fingers up`, `down`, `status` and `logs`, against the servers themselves."""

from tests.platform import Platform


def test_all_three_answer(platform: Platform) -> None:
    from ops import stack

    assert [(row.server, row.state) for row in stack.status(platform.folder, platform.environment)] == [
        ("s3", "up"),
        ("postgres", "up"),
        ("mlflow", "up"),
    ]
