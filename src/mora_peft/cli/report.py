"""`mora report RESULTS... --output page.html`: the page of a comparison, rebuilt from its results."""

import sys
from argparse import ArgumentParser

from mora_peft.cli._parser import BAD_INPUT, OK
from mora_peft.errors import UserError


def main(argv: list[str]) -> int:
    """Run `mora report` and return its exit code: 0 done, 2 bad input or a page that cannot be written."""
    # Plain argparse: jsonargparse reads a list of positionals as one word, and here each result is a word of its own.
    parser = ArgumentParser("mora report", description="Rebuild the HTML report of a comparison from its results.")
    parser.add_argument("results", nargs="+", help="run.json files, or folders that hold some at any depth")
    parser.add_argument("--output", default="report.html", help="the page to write (default: %(default)s)")
    parser.add_argument("--shared", action="store_true", help="leave plotly beside the page, for pages that share it")
    options = parser.parse_args(argv)

    from mora_peft.recipes.report import build_report, load_results

    try:
        print(build_report(load_results(options.results), options.output, options.shared))
    except UserError as error:
        sentence = str(error)
    except OSError as error:
        sentence = f"{options.output} cannot be written: {error.strerror}."
    else:
        return OK
    print(f"mora report: {sentence}", file=sys.stderr)
    return BAD_INPUT
