def output_with_table(capsys, lines):
    """Return the printed text, and check that its table has `lines` lines and fits 80 columns."""
    printed = capsys.readouterr().out
    table = [line for line in printed.splitlines() if line[:1] in "┏┃┡│└"]
    assert len(table) == lines and max(map(len, table)) <= 80 and "…" not in printed
    return printed
