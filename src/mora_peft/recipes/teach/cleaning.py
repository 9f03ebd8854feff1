"""What stands twice is learned once: duplicate and near-duplicate documents, and paragraphs that many share."""

from collections import Counter
from dataclasses import replace

from .documents import Document, Summary, plain
from .language import words

#: Documents whose sets of 5-grams overlap by this share (Jaccard) say the same.
NEAR = 0.85


def cleaned(documents: list[Document], summary: Summary) -> list[Document]:
    """`documents` without duplicates and shared boilerplate; `summary` gets an entry for each, and for what went."""
    kept = _without_duplicates([_without_boilerplate(document, summary, documents) for document in documents], summary)
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
    from datasketch import MinHash, MinHashLSH

    index, exact, kept = MinHashLSH(threshold=NEAR, num_perm=128), {}, []
    for document in documents:
        said = words(document.text())
        if (same := exact.setdefault(tuple(said), document.path)) != document.path:
            summary.note(document.path, "dropped", f"the same as {same}")
            continue
        signature = MinHash(num_perm=128)
        signature.update_batch([gram.encode() for gram in {" ".join(said[n : n + 5]) for n in range(len(said))}])
        if near := index.query(signature):
            summary.note(document.path, "dropped", f"nearly the same as {near[0]}")
            continue
        index.insert(document.path, signature)
        kept.append(document)
    return kept
