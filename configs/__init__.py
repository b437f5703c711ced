"""The shipped configs; installed as hrseg.configs."""
