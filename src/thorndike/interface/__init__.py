"""What people see of a run and say to it: lines and panels while it goes on, films, curves, tables, words."""
