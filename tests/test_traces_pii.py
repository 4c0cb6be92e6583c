"""Masking: what is personal goes, what only looks like it stays, one value has one placeholder."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vertigym.traces.pii import Masker, iban_valid, luhn_valid

NAMES = ("Anna Berg", "Will", "Jean-Luc Picard")


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Write to Anna.Berg+x@mail.example.co.uk.", "Write to [EMAIL_1]."),
        ("(+49 30 901820-17)", "([PHONE_1])"),
        ("+49 (0)30 901820", "[PHONE_1]"),
        ("0049 30 901820", "[PHONE_1]"),
        ("call (415) 555-0132 now", "call [PHONE_1] now"),
        ("415-555-0132", "[PHONE_1]"),
        ("0171 2345678", "[PHONE_1]"),
        ("Tel.: 4471829", "Tel.: [PHONE_1]"),
        ("4111 1111 1111 1111, exp 12/27", "[CARD_1], exp 12/27"),
        ("4111111111111111", "[CARD_1]"),
        ("3782-822463-10005", "[CARD_1]"),
        ("DE89 3704 0044 0532 0130 00 please", "[IBAN_1] please"),
        ("gb82west12345698765432", "[IBAN_1]"),
        ("to DE89370400440532013000, tel +49 30 901820", "to [IBAN_1], tel [PHONE_1]"),
        ("I am Anna Berg", "I am [NAME_1]"),
        ("i am anna berg", "i am [NAME_1]"),
        ("WILL says", "[NAME_1] says"),
        ("Jean-Luc Picard's ship", "[NAME_1]'s ship"),
    ],
)
def test_personal_data_goes(text: str, masked: str) -> None:
    assert Masker(names=NAMES).mask(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "order 4471829301",
        "4111 1111 1111 1112",  # no card: Luhn
        "DE89 3704 0044 0532 0130 01",  # no IBAN: checksum
        "DE00278394159129129008",  # passes mod 97, but 00 are no check digits
        "tracking 00340434161094042557",
        "05.06.2026 14:30",
        "2026-01-31 12:00:00",
        "10.0.255.1",
        "1,299.00 EUR",
        "1767225600.123",
        "version 3.11.7",
        "@anna on the forum, a@b",
        "I will mark it",
        "Annabel Bergman",
        "5f3a2b1c-1234-5678-9012-123456789012",
    ],
)
def test_what_only_looks_like_it_stays(text: str) -> None:
    assert Masker(names=NAMES).mask(text) == text


def test_one_value_has_one_placeholder_however_it_is_spelt() -> None:
    masker = Masker(names=NAMES)
    said = "a@example.com A@Example.com b@example.com +4930901820 +49 30 90-18-20 0049 30 901820 +49 30 901821"
    assert masker.mask(said) == "[EMAIL_1] [EMAIL_1] [EMAIL_2] [PHONE_1] [PHONE_1] [PHONE_1] [PHONE_2]"
    assert dict(masker.values) == {"email": 2, "phone": 2}
    assert dict(masker.replaced) == {"email": 3, "phone": 4}


def test_all_texts_of_a_row_are_masked_but_ids() -> None:
    row = {
        "id": "4111111111111111",
        "messages": [{"role": "tool", "tool_call_id": "a@b.com", "content": "a@b.com"}],
        "meta": {"deep": [{"er": "mail a@b.com"}], "n": 4111111111111111},
    }
    assert Masker().mask_all(row) == {
        "id": "4111111111111111",
        "messages": [{"role": "tool", "tool_call_id": "a@b.com", "content": "[EMAIL_1]"}],
        "meta": {"deep": [{"er": "mail [EMAIL_1]"}], "n": 4111111111111111},
    }


def test_only_the_kinds_asked_for_are_masked_and_old_placeholders_never_collide() -> None:
    assert Masker(["email"]).mask("a@b.com +49 30 901820") == "[EMAIL_1] +49 30 901820"
    masker = Masker()
    assert masker.mask("[EMAIL_7] and c@example.com and [EMAIL_7]") == "[EMAIL_1] and [EMAIL_2] and [EMAIL_1]"


def test_checksums_against_published_numbers() -> None:
    assert all(map(luhn_valid, ("4111111111111111", "5555555555554444", "378282246310005", "79927398713")))
    assert not luhn_valid("79927398710")
    assert all(map(iban_valid, ("GB82WEST12345698765432", "DE89370400440532013000", "NO9386011117947")))
    assert not iban_valid("GB82WEST12345698765431")


@given(st.text())
def test_masking_is_total_and_done_after_one_pass(text: str) -> None:
    once = Masker().mask(text)
    assert Masker().mask(once).count("[") == once.count("[")
