def output_with_table(capsys, lines):
    """Return what was printed, with a table of so many lines that is whole in 80 columns."""
    printed = capsys.readouterr().out
    table = [line for line in printed.splitlines() if line[:1] in "┏┃┡│└"]
    assert len(table) == lines and max(map(len, table)) <= 80 and "…" not in printed
    return printed
