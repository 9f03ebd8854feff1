"""The tables of results of README.md and of the guides, from the results that are committed.

`python benchmarks/readme_tables.py [STUDY ...]` fills the place of each study, `<!-- results:STUDY:begin -->` to
`<!-- results:STUDY:end -->`, with the results in benchmarks/results/STUDY; without names, every place. The study
`summary` is all comparisons in short, `serving` that of benchmarks/serving_batch.py and serving_scale.py, `teach` that
of benchmarks/teach.py, `memorization-rates` that of the searches of two configs. Doing it twice changes nothing.
"""

import re
import sys
from pathlib import Path

from rates_table import rates_table
from serving_tables import serving_table
from study_tables import summary, tables
from teach_tables import teach_table

from mora_peft.errors import UserError
from mora_peft.recipes.files import write_text

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "README.md", ROOT / "docs" / "studies.md", ROOT / "docs" / "teach.md")
PLACE = re.compile(r"(<!-- results:(\S+):begin -->\n).*?(<!-- results:\2:end -->)", re.DOTALL)


def fill(readme: str, folder: Path, studies: list[str]) -> str:
    """The text of a README with the places of `studies` filled (of all that it has where none is named).

    Raises UserError where a study has no place, or no results.
    """
    places = {name for _, name, _ in PLACE.findall(readme)}
    for study in studies:
        if study not in places:
            raise UserError(
                f"There is no place for {study}: a page needs <!-- results:{study}:begin --> and the same with end."
            )

    def filled(place: re.Match) -> str:
        begin, study, end = place.groups()
        if studies and study not in studies:
            return place[0]
        special = {
            "summary": lambda: summary(folder),
            "serving": lambda: serving_table(folder),
            "teach": lambda: teach_table(folder / "teach"),
            "memorization-rates": lambda: rates_table(folder / "memorization-rates"),
        }
        table = special.get(study, lambda: tables(folder / study))()
        return f"{begin}{table}\n{end}"

    return PLACE.sub(filled, readme)


def main(studies: list[str]) -> int:
    between = "\f"
    whole = between.join(page.read_text(encoding="utf-8") for page in PAGES)
    try:
        texts = fill(whole, ROOT / "benchmarks" / "results", studies).split(between)
    except UserError as error:
        print(f"readme_tables.py: {error}", file=sys.stderr)
        return 2
    for page, text in zip(PAGES, texts, strict=True):
        write_text(page, text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
