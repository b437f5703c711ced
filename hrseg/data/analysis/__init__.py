"""Analysis of data sets: file checks, statistics, folder layouts, and config suggestions."""
