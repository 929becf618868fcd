"""What docs/lstm.md claims, computed: its pictures and figures, made anew by ``make docs``.

Each module is one study: ``study(folder)`` returns the figures that the page quotes and draws its
picture into the folder, ``table(figures)`` writes them down. Nothing of the package imports them.
"""
