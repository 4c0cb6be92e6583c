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


def test_a_step_shows_its_reward_its_way_and_its_speed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    train_two_steps()
    said = capsys.readouterr().err
    assert "grpo step 2/2" in said
    assert "reward 0.750 ▁█  loss 0.100  1,234 tokens/s" in said


def test_what_does_not_fit_is_left_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("COLUMNS", "72")
    train_two_steps()
    said = capsys.readouterr().err
    assert "grpo step 2/2" in said
    assert "reward 0.750 ▁█" in said
    assert "loss" not in said
    assert "…" not in said


def test_there_is_no_bar_in_ci(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    train_two_steps()
    assert capsys.readouterr().err.strip() == "a note"
