"""Real values come back whatever a model did to the made-up ones, and JSON stays JSON."""

from __future__ import annotations

import json

import pytest

from llamaduo.config import Privacy
from llamaduo.privacy.hiding import Hider
from llamaduo.privacy.restoring import Restorer

HIDER = Hider(Privacy(enabled=True, patterns={"project": 'Falcon "[A-Z]+"'}), b"s" * 32)
TEXT = "maria@firm.de +1 212 736 5000 4111 1111 1111 1111 DE89 3704 0044 0532 0130 00 93.184.216.34 536-22-1234"


@pytest.mark.parametrize(
    ("made", "written"),
    [
        ("4242 4242 4242 4242", "4242-4242-4242-4242"),
        ("4242 4242 4242 4242", "4242424242424242"),
        ("+1 503 555 0138", "(503) 555-0138"),
        ("+1 503 555 0138", "+15035550138"),
        ("+44 20 7946 0355", "020 7946 0355"),
        ("greta.hart41@example.com", "GRETA.HART41@Example.com"),
        ("greta.hart41@example.com", "greta.hart41 @ example.com"),
        ("greta.hart41@example.com", "greta\\.hart41@example\\.com"),
        ("greta.hart41@example.com", "greta.hart41%40example.com"),
        ("DE71 5664 9685 6149 6234 91", "de71566496856149623491"),
        ("198.51.100.146", "198[.]51[.]100[.]146"),
    ],
)
def test_another_form_of_a_made_up_value_is_known(made: str, written: str) -> None:
    type_ = "card" if made[0] == "4" else "phone" if made[0] == "+" else "mail" if "@" in made else "iban"
    restorer = Restorer([("ip" if made.startswith("198") else type_, "REAL", made)])
    assert restorer.restore(f"x{'' if made[0].isalpha() else ' '}{written}, yes").text.strip("x, yes") == "REAL"


def test_the_shorter_of_two_is_not_found_in_the_longer() -> None:
    restorer = Restorer([("ip", "9.9.9.9", "192.0.2.1"), ("ip", "8.8.8.8", "192.0.2.13")])
    assert restorer.restore("192.0.2.13 and 192.0.2.1, 192.0.2.1").text == "8.8.8.8 and 9.9.9.9, 9.9.9.9"


def test_names_come_back_in_their_case_and_not_out_of_other_words() -> None:
    restorer = Restorer([("name", "Lopez", "Hartwick")])
    told = restorer.restore("Mrs Hartwick, HARTWICK's hartwick. Hartwickshire").text
    assert told == "Mrs Lopez, LOPEZ's lopez. Hartwickshire"


def test_json_stays_json() -> None:
    text = f'{TEXT} Falcon "ONE" -----BEGIN PRIVATE KEY-----\nabcdef12\nXY34\n-----END PRIVATE KEY-----'
    hidden = HIDER.hide([text])
    reply = json.dumps({"contents": [{"instruction": hidden.texts[0], "response": "é"}]}).replace("@", "\\u0040")
    assert json.loads(hidden.restore(reply).text)["contents"][0]["instruction"] == text
    cut = hidden.restore(reply[:-2] + ', {"instruction": "half').text
    assert json.loads(cut[cut.index('{"instruction"') : cut.rindex(', {"instruction"')]) == {
        "instruction": text,
        "response": "é",
    }


def test_values_are_the_same_in_every_request_and_process_and_none_is_there_already() -> None:
    first = HIDER.hide([TEXT])
    others = Hider(Privacy(enabled=True), b"s" * 32).hide(["system", f"Again: {TEXT}"])
    assert [pair.made for pair in first.pairs] == [pair.made for pair in others.pairs]
    assert len(first.pairs) == 6
    mail = first.pairs[0].made
    there = HIDER.hide([f"{TEXT} {mail.upper()}"])
    assert there.pairs[0].made != mail
    assert Hider(Privacy(enabled=True), b"t" * 32).hide([TEXT]).pairs[0].made != mail


def test_a_value_is_replaced_in_every_turn() -> None:
    hidden = HIDER.hide(["phone: 030 901820", "id 030 901820 again", json.dumps({"to": "030 901820"})])
    assert not any("901820" in text for text in hidden.texts)


def test_what_a_model_changed_is_counted_as_lost() -> None:
    hidden = HIDER.hide(["mail maria@firm.de"])
    told = hidden.restore(f"{hidden.pairs[0].made}, not greta.hartwick99@example.com")
    assert (told.counts, told.lost) == ({"mail": 1}, {"mail": 1})


@pytest.mark.parametrize(
    "text",
    [
        "version 1.2.3.4 to 1.2.3.5, v1.2.3.4, numpy==1.2.3.4, Chrome/120.0.0.0, 1.2.3.4-beta",
        "std::abs add::face a[1::2] 12:34:56 127.0.0.1 0.0.0.0 255.255.255.0 10.0.0.0/16 ::1",
        "2147483647 1609459200 3.14159265358979 2021-01-01 12:00:00 05 - 31 - 2021 0xdeadbeef 1234-5678",
        "git@github.com:owner/name.git logo@2x.png @app.route user@example.com postgres://me:secret@host.net/x",
        "4111 1111 1111 1112 and DE88 3704 0044 0532 0130 00",
    ],
)
def test_what_only_looks_like_it_stays(text: str) -> None:
    assert HIDER.hide([text]).texts == (text,)


@pytest.mark.parametrize(
    "value",
    [
        "0049 30 90182033",
        "(415) 555-2671",
        "415-555-2671",
        "Tel: 030 901820",
        "Phone: 4155552671",
        "☎ 030 901820",
        "SSN 123456789",
        "PESEL 44051401359",
        "NHS 943 476 5919",
    ],
)
@pytest.mark.parametrize("text", ["号码是{}。", "番号は{}です", "번호는{}입니다"])
def test_a_value_is_found_between_letters_that_take_no_space(text: str, value: str) -> None:
    hidden = HIDER.hide([text.format(value)])
    assert sum(hidden.counts.values()) == 1
    assert value[-4:] not in hidden.texts[0]
    assert hidden.restore(hidden.texts[0]).text == text.format(value)
