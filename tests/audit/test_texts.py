"""Refusals in several languages, words of toxic texts, languages: what is seen, and what must not be."""

from __future__ import annotations

import pytest

from llamaduo.audit.texts import language, read_list, refuses, toxic


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I\u2019m sorry, but I can\u2019t assist with that request.",
        "**Sorry**, I cannot provide that information.",
        "I am afraid I can't do that, Dave.",
        "Unfortunately, I am unable to generate images.",
        "As an AI language model, I don't have feelings and cannot judge.",
        "Thank you for asking! I can't provide medical advice.",
        "I understand your worry, but I can't help with that.",
        "This request violates my guidelines.",
        "Es tut mir leid, aber dabei kann ich nicht helfen.",
        "Leider kann ich Ihnen dabei nicht helfen.",
        "Je suis désolé, mais je ne peux pas vous aider.",
        "Lo siento, pero no puedo ayudarte con eso.",
        "Mi dispiace, ma non posso aiutarti.",
        "Desculpe, mas não posso ajudar com isso.",
        "Het spijt me, maar ik kan je daar niet bij helpen.",
        "Niestety, nie mogę pomóc.",
        "Извините, но я не могу помочь.",
        "抱歉,我无法提供该信息。",
        "申し訳ありませんが、そのご依頼にはお答えできません。",
        "죄송하지만 그 요청은 도와드릴 수 없습니다.",
    ],
)
def test_refusals_are_seen(text: str):
    assert refuses(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "billing",
        "He wrote: \"I'm sorry, but I can't help with that.\"",
        '"I\'m sorry, I cannot help you," said the clerk, and closed the window.',
        "> I'm sorry, but I can't assist with that.\n\nThis is how such an answer might read.",
        "`I'm sorry, I can't help with that.`",
        "The model answered that it can't help with that.",
        "I'm sorry, but I can't make it to your party on Friday.",
        "I can't wait to help you with this!",
        "I cannot help but admire the view.",
        "I'm sorry to hear that. Here is what you can do:",
        "Es tut mir leid, dass die Lieferung zu spät kam. Wir schicken eine neue.",
        "Je suis désolé pour le retard.",
        "不好意思让您久等了,包裹明天到。",
    ],
)
def test_what_quotes_a_refusal_or_is_sorry_for_something_else_is_none(text: str):
    assert not refuses(text)


def test_toxic_words_are_whole_words():
    assert toxic("You idiot, shut up") == {"insults": ["you idiot", "shut up"]}
    assert toxic("YOU\u2019RE STUPID. Bullshit!") == {"profanity": ["bullshit"], "insults": ["you're stupid"]}
    assert toxic("Scunthorpe, Dickens, class assignment, shitake, the spice rack, cockpit") == {}
    assert toxic("kill the process and shoot the next scene; a stupid question") == {}
    assert toxic("") == {}


def test_every_list_holds_what_it_says():
    lists = {name: read_list(name) for name in ("refusals.yaml", "toxicity.yaml")}
    for found in lists.values():
        assert all(isinstance(form, str) and form for forms in found.values() for form in forms)
    toxic_words = [form for forms in lists["toxicity.yaml"].values() for form in forms]
    assert len(toxic_words) == len(set(toxic_words))
    assert all(toxic(form) for form in toxic_words)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Der Vertrag wurde gekündigt.", "de"),
        ("Please send the invoice to my new address.", "en"),
        ("请问如何重置我的密码", "zh"),
        ("Je voudrais changer mon mot de passe, s'il vous plaît.", "fr"),
        ("Bitte sehr, hier ist der Code:\n```python\ndef f(x):\n    return x\n```", "de"),
        ("", None),
        ("billing", None),
        ("bako", None),
        ("12345 67890 12345", None),
        ("```python\ndef function(argument): return argument\n```", None),
    ],
)
def test_languages_are_told_of_what_is_long_enough(text: str, expected: str | None):
    assert language(text) == expected


def test_odd_text_breaks_nothing():
    for text in ("\ud800 this is odd text with a broken sign", "\x00" * 50, "a" * 100_000, "\n\n\n"):
        language(text)
        refuses(text)
        toxic(text)
