"""How Sphinx builds the manual: ``make docs``, or ``python -m sphinx -b html -W --keep-going docs docs/_build/html``.

Only Sphinx's own extensions, MyST for Markdown, and `hooks` beside this file. Formulas are plain text, so that the site
needs neither a network nor a script to be read.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]
warnings.simplefilter("ignore")  # of neighbours at import; Sphinx's own are no Python warnings

import ddf_tomo  # noqa: E402

project = "ddf_tomo"
author = "the ddf_tomo developers"
copyright = "the ddf_tomo developers, MIT licence"
version = release = ddf_tomo.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon", "myst_parser", "hooks"]
exclude_patterns = ["_build"]
default_role = "py:obj"  # a name in single backticks is a link where there is such a name
nitpicky = False
suppress_warnings = ["ref.python"]  # attributes of one name in several classes, where any link will do

autosummary_generate = False
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
autodoc_type_aliases = {"ArrayLike": "ArrayLike", "Tensor": "Tensor", "Array": "Array"}
python_maximum_signature_line_length = 100
python_use_unqualified_type_names = True
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

myst_heading_anchors = 3
myst_links_external_new_tab = False

html_theme = "furo"
html_title = "ddf_tomo"
html_show_sphinx = False
html_static_path = ["static"]
html_css_files = ["site.css"]
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#00558b", "color-brand-content": "#00558b"},
    "dark_css_variables": {"color-brand-primary": "#7cc4f0", "color-brand-content": "#7cc4f0"},
}
