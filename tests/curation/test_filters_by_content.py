"""Secrets, refusals, languages: what a row says, wherever it stands and in many languages."""

from __future__ import annotations

import pytest
from sample_records import example

from llamaduo.config import Curation, CurationFilter
from llamaduo.curation.curate import Curated, curate
from llamaduo.records import Example, prompt_id

KEY = "sk-proj-" + "abcd1234" * 4
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\n-----END RSA PRIVATE KEY-----"


def curated(name: CurationFilter, new: list[Example], known: list[Example] | None = None, **config: object) -> Curated:
    return curate(new, known=known or [], held_out=[], config=Curation(filters=[name], **config))  # type: ignore[arg-type]


@pytest.mark.parametrize("key", [KEY, PEM, "ghp_" + "a1B2" * 9, "AKIA" + "ABCD1234" * 2])
@pytest.mark.parametrize("text", ["Use {} here.", "{}", "x" * 300 + " {} " + "y" * 300])
def test_a_key_goes_and_is_never_shown(key: str, text: str) -> None:
    system = ({"role": "system", "content": text.format(key)}, {"role": "user", "content": "Hello?"})
    new = [
        example(text.format(key)),
        example("Which key?", text.format(key)),
        Example(prompt_id(system), system, "Hello."),
        example("Which key?", "Put sk-... or YOUR_API_KEY there."),
    ]
    found = curated(CurationFilter.secrets, new)
    assert list(found.kept) == new[3:]
    told = repr([*found.removed, *found.reports])
    assert not any(piece in told for piece in (key, key[4:20], key[-12:]))


def test_no_other_filter_shows_a_key() -> None:
    new = [example(f"{KEY}", f"[Your name] {KEY}")]
    found = curate(new, known=new, held_out=new, config=Curation(filters=list(CurationFilter)))
    assert [one.reason for one in found.removed] == ["secrets"]
    assert KEY[8:20] not in repr(found.reports)


@pytest.mark.parametrize(
    "response",
    [
        "I'm sorry, but I can't help with that.",
        "I cannot assist with this request.",
        "As an AI language model, I have no favourite food, but many people like pizza.",
        "I'm just an AI, so I have never been there.",
        "As of my last update in 2023, the tower was open.",
        "I apologize, but I cannot fulfill this request.",
        "Sorry, but I'm not able to help with this one.",
        "I’m sorry, but as an AI assistant I have no opinion.",  # noqa: RUF001
        "I'm not comfortable answering that.",
        "Als KI-Sprachmodell habe ich keine Meinung.",
        "Es tut mir leid, aber dabei kann ich nicht helfen.",
        "Je suis désolé, mais je ne peux pas vous aider.",
        "En tant que modèle de langage, je vous propose ceci.",
        "Lo siento, pero no puedo ayudarte con eso.",
        "Como modelo de lenguaje, prefiero no opinar.",
        "作为一个人工智能语言模型，我没有个人意见。",  # noqa: RUF001
        "很抱歉，我无法提供这方面的帮助。",  # noqa: RUF001
        "申し訳ありませんが、お手伝いできません。",
    ],
)
def test_a_refusal_goes_in_many_languages(response: str) -> None:
    found = curated(CurationFilter.refusals, [example("How do I open a lock?", response)])
    assert [one.reason for one in found.removed] == ["refusals"]


@pytest.mark.parametrize(
    ("prompt", "response"),
    [
        ("What do bots say?", '"As an AI language model, I cannot help" is what many of them say.'),
        ("What do bots say?", "Many say: I'm sorry, but I can't help with that."),
        ("Translate: je ne peux pas vous aider", 'I can see it: "I cannot help you".'),
        ("Why is my parcel late?", "I'm sorry to hear that! Your parcel is on its way."),
        ("What is AI?", "AI is the study of machines that act as if they could think."),
        ("How can I sort a list?", "As an aid, take `sorted`."),
        ("Write a line in which a robot declines.", "I'm sorry, but I can't do that, Dave."),
        ("Can I send it back?", "I'm sorry, but we can't offer refunds after 30 days."),
        ("Who should read it?", "As an AI engineer, you should."),
        ("Where is it?", "As in airports, at the entrance."),
    ],
)
def test_content_is_no_refusal(prompt: str, response: str) -> None:
    assert not curated(CurationFilter.refusals, [example(prompt, response)]).removed


def test_a_product_that_refuses_may_refuse() -> None:
    new = [example("How?", "I'm sorry, but I can't help with that.")]
    known = [example(f"prompt {n}", new[0].response if n < 3 else f"Answer {n}") for n in range(100)]
    assert not curated(CurationFilter.refusals, new, known).removed
    assert curated(CurationFilter.refusals, new, known, usual=0.05).removed
    assert curated(CurationFilter.refusals, new, [*known[1:], *known[3:]]).removed


ENGLISH = [
    example(f"Where can I find the {thing} that I ordered last week?", f"Your {thing} will arrive by Monday, sorry.")
    for thing in ("chair", "lamp", "table", "carpet", "mirror", "pillow", "clock", "vase")
]
GERMAN = example("Wo finde ich den Stuhl, den ich bestellt habe?", "Ihr Stuhl kommt am Montag bei Ihnen an.")
CODE = "for eintrag in liste:\n    ausgabe = eintrag.wert()\n    drucke(ausgabe)\nende = liste[0];\n"


@pytest.mark.parametrize(
    "new",
    [
        GERMAN,
        example("Where is my chair, please?", "Ihr Stuhl kommt am Montag\nbei Ihnen an.\n\nMit freundlichen Grüßen"),
        example("Where is my chair?", "* Der Stuhl kommt am Montag an.\n* Die Kunde(n)liste liegt dabei."),
        example("Where is my chair?", "# Zur Bestellung\nIhr Stuhl kommt am Montag bei Ihnen an."),
        example("Où est la chaise que j'ai commandée ?", "It will arrive by Monday."),
        example("Where is my chair?", "您的椅子我们已经发货了，请您再耐心等待几天，很快就会送到您的家里。"),  # noqa: RUF001
        example("Where is my chair?", f"So geht es mit der Bestellung am besten:\n```\n{CODE}```\nViel Erfolg damit!"),
    ],
)
def test_a_row_in_another_language_goes(new: Example) -> None:
    found = curated(CurationFilter.language, [new], ENGLISH)
    assert [one.reason for one in found.removed] == ["language"]
    assert not curated(CurationFilter.language, [new], ENGLISH, languages=["de-DE", "FR", "zh", "en"]).removed
    assert not curated(CurationFilter.language, [new]).removed  # nothing says which ones are allowed


@pytest.mark.parametrize(
    "response",
    ["", "Ja.", "OK, Montag", CODE, f"```\n{CODE}```", "12, 13, 14", "\n\n", "https://beispiel.de/der/stuhl"],
)
def test_short_texts_and_code_pass(response: str) -> None:
    assert not curated(CurationFilter.language, [example("Where is my chair?", response)], ENGLISH).removed


def test_prompts_and_responses_are_looked_at_each_by_itself() -> None:
    known = [example(row.prompt, GERMAN.response) for row in ENGLISH]
    assert not curated(CurationFilter.language, [example(ENGLISH[0].prompt + " Now?", GERMAN.response)], known).removed
    assert curated(CurationFilter.language, [GERMAN], known).removed[0].why == "a prompt in `de`"


def test_what_few_coverage_rows_are_in_is_not_allowed() -> None:
    known = [example(f"{n}. {row.prompt}", row.response) for n in range(10) for row in ENGLISH]
    assert curated(CurationFilter.language, [GERMAN], [*known, GERMAN]).removed
    assert not curated(CurationFilter.language, [GERMAN], [*known, *[GERMAN] * 3]).removed
