"""The word before a number says what it is: `call me on`, `"order_id": "`, `ISBN`.

The last word before it counts, over words that say nothing (no., number, is, my), up to the end of a sentence
or to another number.
"""

import re

_PHONE = (
    "phone telephone tel telefon telefono téléphone telephon teléfono telefoon mobile mobil móvil movil "
    "mobiel portable cell cellphone cel handy call text ring fax whatsapp sms dial msisdn rufnummer "
    "telefonnummer handynummer cellulare"
)
_OTHER = (
    "order bestellung bestellnummer auftrag auftragsnummer commande pedido ordine invoice rechnung "
    "rechnungsnummer facture factura fattura ticket case tracking parcel shipment sendung "
    "sendungsnummer paket colis isbn issn ean gtin upc sku imei serial seriennummer ref reference "
    "referenz uuid version v build timestamp epoch time created updated expires batch lot contract "
    "vertrag article artikel artikelnummer part model item product produkt size amount total price "
    "quantity qty count"
)
_CARD = "card cc creditcard debitcard karte kreditkarte carte tarjeta carta kaart maestro"
_ID = {
    "us.ssn": "ssn social security itin",
    "de.idnr": "tax steuer steuerid steueridentifikationsnummer idnr idnummer tin",
    "pl.pesel": "pesel",
    "nl.bsn": "bsn sofinummer burgerservicenummer",
    "gb.nhs": "nhs",
    "br.cpf": "cpf",
    "fr.nir": "nir sécu sécurité securite",
    "es.dni": "dni nif",
    "it.codicefiscale": "codice fiscale",
    "se.personnummer": "personnummer",
    "in_.aadhaar": "aadhaar",
}
_SAYS = dict.fromkeys(_PHONE.split(), "phone") | dict.fromkeys(_OTHER.split(), "other")
_SAYS |= dict.fromkeys(_CARD.split(), "card")
_SAYS |= {word: name for name, words in _ID.items() for word in words.split()}
_EMPTY = frozenset(
    [
        "me",
        "us",
        "him",
        "her",
        "them",
        "back",
        "at",
        "on",
        "to",
        "under",
        "unter",
        "is",
        "was",
        "are",
        "no",
        "nr",
        "num",
        "number",
        "numbers",
        "nummer",
        "numero",
        "número",
        "numéro",
        "n",
        "o",
        "my",
        "our",
        "the",
        "new",
        "old",
        "unser",
        "mein",
        "mon",
        "ma",
        "mi",
        "il",
        "al",
        "au",
        "le",
        "la",
        "el",
        "de",
        "der",
        "die",
        "das",
        "auf",
        "ist",
        "es",
        "est",
        "here",
        "customer",
        "client",
        "code",
        "value",
        "s",
    ]
)
_END = re.compile(r"(?<!\bno)(?<!\bnr)(?<!\btel)[.!?]\s|\d\w*|[\n\0]")  # of a sentence, or of the number before
_CAMEL = re.compile(r"(?<=[a-zà-ÿ])(?=[A-Z])")
_WORD = re.compile(r"[^\W\d_]+")
_FAR = 48  # characters


def label_before(text: str, at: int) -> str:
    """What the words before a place say of the number there: "phone", "card", "other" (an order, a time,
    …), the module of `stdnum` for a national number, or nothing."""
    before = _END.split(text[max(0, at - _FAR) : at])[-1]
    words = [word for word in reversed(_WORD.findall(_CAMEL.sub(" ", before).casefold())) if word not in _EMPTY]
    if words[:1] == ["id"]:  # of what, the word before says
        return _SAYS.get("".join(words[1:2]), "other")
    return _SAYS.get("".join(words[:1]), "")
