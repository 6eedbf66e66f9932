r"""What of a text is code: fenced blocks as Markdown has them, and code within a line.

    fenced("Run this:\n```sh\nls\n```\nThen `exit`.")
    Fenced(prose="Run this:\n\nThen .", blocks=[Block("sh", "ls")], unclosed=False)

Fences may be indented, as in lists. A fence with a language inside another block is part of it (Markdown's rule) or
opens one of its own (what people mean); the text is unclosed if either way one stays open. A fence at the end of a line
of code closes it, too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_FENCE = re.compile(
    r"[ \t]*(?:[>*+-][ \t]+|\d+\.[ \t]+)?(`{3,}|~{3,})[ \t]*+((?:[^` \t](?:[^`]*?[^` \t])??)??)[ \t]*\r?"
)
_AT_THE_END = re.compile(r"[^`]*[^`\s][^`]*(```)[ \t]*\r?")
_INLINE = re.compile(r"(`+)(?!`)[^\n]+?(?<!`)\1(?!`)")


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    language: str
    """What stands behind the fence, its first word in small letters; empty where nothing does."""
    code: str


@dataclass
class Fenced:
    """A text in its parts."""

    prose: str = ""
    """Everything outside of code."""
    blocks: list[Block] = field(default_factory=list)
    """The fenced blocks, the last one too if it isn't closed."""
    unclosed: bool = False


def fenced(text: str) -> Fenced:
    """Return the parts of a text."""
    if "```" not in text and "~~~" not in text:
        return Fenced(_INLINE.sub("", text))
    plain = _read(text, nested=False)
    return Fenced(plain.prose, plain.blocks, plain.unclosed and _read(text, nested=True).unclosed)


def _read(text: str, *, nested: bool) -> Fenced:
    prose: list[str] = []
    code: list[str] = []
    blocks: list[Block] = []
    fences: list[str] = []
    language = ""
    for line in text.split("\n"):
        found = _FENCE.fullmatch(line)
        if not fences:
            if found:
                fences, code, language = [found[1]], [], _language(found[2])
            else:
                prose.append(line)
            continue
        if nested and found and found[2] and found[1][0] == fences[-1][0]:
            fences.append(found[1])
        elif _closes(found, fences[-1]) or _AT_THE_END.fullmatch(line):
            fences.pop()
            if not found:
                code.append(line.rstrip().removesuffix("```"))
            if not fences:
                blocks.append(Block(language, "\n".join(code)))
                continue
        code.append(line)
    if fences:
        blocks.append(Block(language, "\n".join(code)))
    return Fenced(_INLINE.sub("", "\n".join(prose)), blocks, bool(fences))


def _closes(found: re.Match[str] | None, fence: str) -> bool:
    return bool(found and not found[2] and found[1][0] == fence[0] and len(found[1]) >= len(fence))


def _language(behind: str) -> str:
    words = behind.split()
    return words[0].strip("{}.,:").casefold() if words else ""
