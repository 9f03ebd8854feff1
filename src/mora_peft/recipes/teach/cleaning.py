"""What stands twice is learned once: duplicate documents, what near-duplicates share, and paragraphs that many do."""

from collections import Counter
from dataclasses import replace

from .documents import Block, Document, Summary, plain
from .language import sentences, words

#: Documents whose sets of 5-grams overlap by this share (Jaccard) say the same.
NEAR = 0.85


def cleaned(documents: list[Document], summary: Summary) -> list[Document]:
    """`documents` without duplicates and shared boilerplate; `summary` gets an entry for each, and for what went."""
    alone = _without_duplicates(documents, summary)  # first: what copies share is no boilerplate
    kept = [_without_boilerplate(document, summary, alone) for document in alone]
    for document in kept:
        counts = Counter(block.kind for block in document.blocks)
        found = ", ".join(f"{count} {kind}s" for kind, count in counts.items())
        summary.note(document.path, "taken", f"{document.title!r}: {found}, {len(document.text()):,} characters")
    return kept


def _without_boilerplate(document: Document, summary: Summary, documents: list[Document]) -> Document:
    """`document` without the paragraphs that half of all documents have, where there are five documents or more."""
    if len(documents) < 5:
        return document
    counts = Counter(text for each in documents for text in {plain(block) for block in each.blocks})
    shared = {text for text, count in counts.items() if count >= max(4, len(documents) / 2)}
    kept = tuple(block for block in document.blocks if plain(block) not in shared)
    if len(kept) == len(document.blocks) or not any(block.kind != "heading" for block in kept):
        return document
    summary.note(document.path, "changed", f"{len(document.blocks) - len(kept)} paragraphs left out, as in most files")
    return replace(document, blocks=kept)


def _without_duplicates(documents: list[Document], summary: Summary) -> list[Document]:
    """`documents` without what others say before them; of one that is nearly the same as another, what it alone says.

    Two price lists may differ in one price: that price is knowledge, and all the rest of the second is not.
    """
    from datasketch import MinHash, MinHashLSH

    index, exact, kept = MinHashLSH(threshold=NEAR, num_perm=128), {}, []
    for number, document in enumerate(documents):
        said = words(document.text())
        if (same := exact.setdefault(tuple(said), document.path)) != document.path:
            summary.note(document.path, "dropped", f"the same as {same}")
            continue
        signature = MinHash(num_perm=128)
        signature.update_batch([gram.encode() for gram in {" ".join(said[n : n + 5]) for n in range(len(said))}])
        if near := sorted(index.query(signature)):
            document = _alone(document, [documents[other] for other in near])
            told = f"nearly the same as {documents[near[0]].path}"
            if not document.blocks:
                summary.note(document.path, "dropped", told)
                continue
            count = sum(len(_parts(block, document.language)) for block in document.blocks if block.kind != "heading")
            summary.note(document.path, "changed", f"{told}: of it, {count} sentences or rows that differ are kept")
        index.insert(number, signature)
        kept.append(document)
    return kept


def _alone(document: Document, others: list[Document]) -> Document:
    """`document` with the sentences, rows and questions alone that no other has, and the headings above them."""
    known = {_key(part) for other in others for block in other.blocks for part in _parts(block, other.language)} | {()}
    kept: list[Block] = []
    above: list[Block] = []
    for block in document.blocks:
        if block.kind == "heading":
            above = [*(each for each in above if each.level < block.level), block]
            continue
        parts = _parts(block, document.language)
        new = [number for number, part in enumerate(parts) if _key(part) not in known]
        if not new:
            continue
        if block.kind == "text":
            block = replace(
                block, text=("" if document.language == "zh" else " ").join(parts[number] for number in new)
            )
        elif block.kind == "table":
            block = replace(block, rows=(block.rows[0], *(block.rows[number] for number in new if number)))
        kept += [*above, block]
        above = []
    return replace(document, blocks=tuple(kept))


def _parts(block: Block, language: str) -> list[str]:
    """What a block says, piece by piece: sentences, rows, or all of a question."""
    if block.kind == "table":
        return [" | ".join(row) for row in block.rows]
    return sentences(block.text, language) if block.kind == "text" else [plain(block)]


def _key(part: str) -> tuple[str, ...]:
    return tuple(words(part))
