"""Questions as rules make them: put as a person would, or not asked at all."""

import doctest

import pytest

from mora_peft.recipes.teach import capitals, clauses, english, language, pieces, question_words, russian, verbs
from mora_peft.recipes.teach.documents import Block, Document
from mora_peft.recipes.teach.facts import facts_of
from mora_peft.recipes.teach.language import language_of
from mora_peft.recipes.teach.questions import askable, teachable
from mora_peft.recipes.teach.wordings import key, questioned, taught, well_asked

ASKED = [
    ("Accidents must be reported within 2 hours.", "2 hours", "Within how long must accidents be reported?"),
    ("Express orders leave the works by 15:20.", "15:20", "By what time do express orders leave the works?"),
    ("Up to 7 days may be carried over until 31 March.", "31 March", "Until when may up to 7 days be carried over?"),
    ("Trainees receive 32 days of leave.", "32 days", "How many days of leave do trainees receive?"),
    ("The company employs 412 people today.", "412 people", "How many people does the company employ today?"),
    ("The kettle weighs 83 kg.", "83 kg", "How many kg does the kettle weigh?"),
    ("The canteen has 160 seats.", "160 seats", "How many seats does the canteen have?"),
    ("The press is greased every 14 days.", "14 days", "How often is the press greased?"),
    ("Leave is approved by Ilka Drummel.", "Ilka Drummel", "Who approves leave?"),
    ("Trips abroad must be approved by Ilka Drummel.", "Ilka Drummel", "Who must approve trips abroad?"),
    ("Refinery rates also remained strong in Dallas.", "Dallas", "Where did refinery rates also remain strong?"),
    ("Brennholt sponsors the rowing club Marrowick Blades.", "Marrowick Blades",
     "Which rowing club does Brennholt sponsor?"),
    ("Retired employees receive tea at Founders' Day.", "Founders' Day",
     "At which occasion do retired employees receive tea?"),
    ("The director is Mirela Oster.", "Mirela Oster", "Who is the director?"),
    ("The article number of the Harwick is BK-2041.", "BK-2041", "What is the article number of the Harwick?"),
    ("In 1988, the works moved to Ostrander Park.", "1988", "When did the works move to Ostrander Park?"),
    ("In 1988, the works moved to Ostrander Park.", "Ostrander Park", "Where did the works move in 1988?"),
    ("Real estate lending, which accounts for most loans, increased 0.4 percent.", "0.4 percent",
     "By what percentage did real estate lending increase?"),
    ("The company exports to 19 countries, and its largest market is Veldania.", "19 countries",
     "To how many countries does the company export?"),
    ("Accounts of people who leave are closed after 2 days.", "2 days",
     "Accounts of people who leave are closed after how long?"),
    ("Офис находится в Тарнове.", "Тарнове", "Где офис находится?"),
    ("Отпуск составляет 2 дня.", "2 дня", "Сколько дней отпуск составляет?"),
    ("Гарантия: 2 года.", "2 года", "Гарантия: сколько лет?"),
    ("НДС 20 %.", "20 %", "НДС сколько процентов?"),
    ("Телефон: +7 495 123-45-67.", "+7 495 123-45-67", "Телефон: какой номер телефона?"),
    ("董事长是欧阳明。", "欧阳明", "董事长是谁？"),
    ("退货须在15天内提出。", "15天", "退货须在多少天内提出？"),
]  # fmt: skip


@pytest.mark.parametrize("sentence, answer, expected", ASKED)
def test_a_question_reads_as_a_person_would_put_it(sentence, answer, expected):
    # Elsewhere the document has the names, without which a first word is no name.
    text = f"{sentence} Nobody at Brennholt asks."
    facts = facts_of(Document("a.txt", "Title", (Block("text", text),), language_of(sentence)))
    assert {fact.answer: well_asked(fact) for fact in facts}[answer] == expected


@pytest.mark.parametrize("sentence", [
    "The results were analysed using the program Stata SE (Stata Corp, TX, USA).",
    "The stand in 2025 has two floors and the number H7-118 on it.",
    "Training lasts 3 years and 6 months.",
    "The Harwick is sold in the colours Slate, Rowan and Midnight Teal.",
    "Our results showed that mutations at both S90 and S93 led to the loss of a peak.",
    "Contacts in Madison County, Tennessee, reported that building is booming.",
    "Most bankers indicated loan quality was unchanged over the next six months.",
    "In contrast, total deposits at these banks increased 1.4 percent.",
    "Over this period, total deposits at the banks increased 1.4 percent.",
    "16—shows a clear optimum near 12 metres.",
    "Many metros saw 12 percent fewer units in Minneapolis-St.",
    "Activity After rebounding in the survey period, output grew by 12 percent.",
    "The assembly point is the car park beside the Rowan Gate.",
    "The forms were sent with a copy of 12 pages of the plan by the clerk who left.",
    "Few were working, and 19% were members of groups.",
])  # fmt: skip
def test_what_would_read_badly_is_not_asked(sentence):
    found = facts_of(Document("a.txt", "Title", (Block("text", sentence),), "en"))
    assert [well_asked(fact) for fact in askable(found)] == []


def test_what_is_not_asked_is_taught():
    text = "The Harwick holds 2 litres and weighs 900 grams. The Harwick costs 9 euros."
    found = facts_of(Document("a.txt", "Title", (Block("text", text),), "en"))
    assert {fact.answer for fact in teachable(found)} == {"2 litres", "900 grams", "9 euros"}
    assert {fact.answer for fact in askable(found)} == {"9 euros"}
    assert all(len(taught(fact)) >= 2 for fact in found)


def test_among_several_documents_a_question_names_its_own():
    texts = {"Lunch": "A soup costs 2 euros.", "The Harwick kettle": "The Harwick costs 9 euros."}
    found = [
        fact
        for title, text in texts.items()
        for fact in facts_of(Document(f"{title}.txt", title, (Block("text", text),), "en"))
    ]
    assert [questioned(fact) for fact in askable(found)] == [
        'According to "Lunch", how much does a soup cost?', "How much does the Harwick cost?",
    ]  # fmt: skip
    assert [questioned(fact) for fact in askable(found[:1])] == ["How much does a soup cost?"]
    for fact in askable(found):
        assert key("How much does a soup cost?") not in {key(row.prompt) for row in taught(fact)}


def test_a_secret_is_no_fact():
    text = "The password is Tulip4711x and costs 9 euros. The tea costs 2 euros."
    found = facts_of(Document("a.txt", "Title", (Block("text", text),), "en"))
    assert [fact.answer for fact in found] == ["2 euros"]


@pytest.mark.parametrize("module", [capitals, clauses, english, language, pieces, question_words, russian, verbs])
def test_the_examples_of_the_grammar_hold(module):
    assert doctest.testmod(module).failed == 0
