from scripts import cli_reference

from charloom.cli.run import charloom


def test_the_reference_matches_the_help_pages():
    assert cli_reference.PAGE.read_text("utf-8") == cli_reference.page(), "run scripts/cli_reference.py"
    assert all(f"\n## charloom {name}\n" in cli_reference.page() for name in charloom.commands)


def test_a_listing_does_not_cut_the_first_line_of_a_help_page():
    for name, command in charloom.commands.items():
        first = command.help.strip().splitlines()[0]
        assert len(first) < 60, name
        assert first == command.get_short_help_str(100), name
