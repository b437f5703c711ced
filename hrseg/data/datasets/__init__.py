"""Data sets: one file each, with its classes, ids, palette and file layout."""
