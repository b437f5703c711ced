"""Reference implementations that tests and benchmarks compare hrseg with."""
