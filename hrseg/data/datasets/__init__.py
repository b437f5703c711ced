"""Data sets, one module each: classes, ids, palette and file layout."""
