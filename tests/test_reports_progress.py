"""The bar of a training: what it says, and where it is not drawn."""

import pytest

from vertigym.reports.progress import sparkline, watched


@pytest.mark.parametrize(
    ("values", "drawn"), [([0.0, 0.5, 1.0], "▁▅█"), ([0.3], "▁"), ([1.0, 1.0], "▁▁"), ([-2.0, -4.0], "█▁")]
)
def test_a_sparkline_reaches_from_the_lowest_to_the_highest(values: list[float], drawn: str) -> None:
    assert sparkline(values) == drawn


def train_two_steps() -> None:
    with watched(2, "grpo") as progress:
        for step, reward in ((1, 0.25), (2, 0.75)):
            progress.on_step(step, {"reward": reward, "loss": 0.1, "tokens_per_second_sampling": 1234.5})
        progress.on_note("a note")


@pytest.mark.parametrize(
    ("columns", "shown"), [(120, "reward 0.750 ▁█  loss 0.100  1,234 tokens/s"), (72, "reward 0.750 ▁█")]
)
def test_a_step_shows_as_much_as_there_is_room_for(
    columns: int, shown: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("COLUMNS", str(columns))
    train_two_steps()
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "grpo step 2/2" in line]
    assert line.rstrip().endswith(shown)


def test_there_is_no_bar_in_ci(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    train_two_steps()
    assert capsys.readouterr().err.strip() == "a note"
