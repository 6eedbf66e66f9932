"""What a YAML may come to before anything is made of it: somebody else's may be small, and fill the memory.

    refuse_too_much(text)                     raises ValueError
    refuse_too_much(text, aliases=False)      also for aliases, which nothing that a run writes has

It is read as a stream of events, which takes neither memory nor depth. What an alias stands for counts each time.
"""

from __future__ import annotations

MOST = 1 << 20
"""Characters, those of what aliases stand for included."""
_DEEPEST = 30


def refuse_too_much(text: str, *, aliases: bool = True) -> None:
    """Raise ValueError for a YAML that is too large, or nested too deeply, or that stands in itself."""
    import yaml

    if len(text) > MOST:
        raise ValueError(f"more than {MOST:,} characters")
    sizes: dict[str, int] = {}
    open_: list[tuple[str | None, int]] = []
    size = 0
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        anchor, begin = getattr(event, "anchor", None), size
        if anchor and not aliases:
            raise ValueError("it has aliases")
        if isinstance(event, yaml.AliasEvent):
            if anchor not in sizes:
                raise ValueError(f"the alias {anchor} stands for nothing before it")
            size += sizes[anchor]
        elif isinstance(event, yaml.CollectionStartEvent):
            open_.append((anchor, begin))
            size += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, begin = open_.pop()
        elif isinstance(event, yaml.ScalarEvent):
            size += len(event.value) + 1
        if anchor and not isinstance(event, yaml.AliasEvent | yaml.CollectionStartEvent):
            sizes[anchor] = size - begin
        if len(open_) > _DEEPEST:
            raise ValueError("it is nested too deeply")
        if size > MOST:
            raise ValueError(f"its aliases come to more than {MOST:,} characters")
