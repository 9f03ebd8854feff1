"""Which facts are taught where there is room for some only."""

from mora_peft.recipes.teach.documents import Block, Document, Summary
from mora_peft.recipes.teach.facts import facts_of
from mora_peft.recipes.teach.prepare import Material, teaching
from mora_peft.recipes.teach.questions import can_be_asked, teachable
from mora_peft.recipes.teach.settings import TeachConfig

#: Of two sentences one can be asked about; of the other no rule is sure what it would be asked for.
PAIR = (
    "The Sable {0} kettle costs {0} crowns. "
    "In town {0}, while some sold, others who had waited bought {0} houses and kept them."
)


def made() -> Material:
    text = " ".join(PAIR.format(number) for number in range(100, 300))
    document = Document("a.md", "Kettles", (Block("text", text),))
    found = teachable(facts_of(document))
    return Material([document], Summary(), {}, found, [])


def test_what_can_be_asked_comes_first_where_the_proof_would_be_short():
    material = made()
    able = [fact for fact in material.found if can_be_asked(fact)]
    assert (len(able), len(material.found)) == (200, 400)
    plenty = teaching(material, 120, TeachConfig(folder="f", model="m", output="o", asked=4))
    assert 40 < sum(map(can_be_asked, plenty.facts)) < 100, "as they come, when the proof has enough"
    short = teaching(material, 120, TeachConfig(folder="f", model="m", output="o", asked=100))
    assert len(short.facts) == 120 and all(map(can_be_asked, short.facts))
    assert short.facts == sorted(short.facts, key=material.found.index)
    most = teaching(material, 210, TeachConfig(folder="f", model="m", output="o", asked=200))
    assert len(most.facts) == 210 and set(able) <= set(most.facts)
