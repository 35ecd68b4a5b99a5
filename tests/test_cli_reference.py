import importlib.util
from pathlib import Path

from charloom.cli.run import charloom

ROOT = Path(__file__).parent.parent


def test_the_reference_matches_the_help_pages():
    spec = importlib.util.spec_from_file_location("cli_reference", ROOT / "scripts" / "cli_reference.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.PAGE.read_text("utf-8") == script.page(), "run scripts/cli_reference.py"
    assert all(f"\n## charloom {name}\n" in script.page() for name in charloom.commands)


def test_a_listing_does_not_cut_the_first_line_of_a_help_page():
    for name, command in charloom.commands.items():
        first = command.help.strip().splitlines()[0]
        assert len(first) < 60, name
        assert first == command.get_short_help_str(100), name
