"""How is the documentation built? `make docs` runs Sphinx with this file; everything comes from this checkout."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER / "_ext"))

# The gallery runs on a sandbox: with no account, no cache and no proxy of the person who builds.
for _variable in ("QODER_ACCESS_TOKEN", "QODER_PAT", "QODER_MANAGED_BASE_URL", "QODER_BASE_URL"):
    os.environ.pop(_variable, None)
os.environ["QODERDATA_CACHE_DIR"] = str(FOLDER / "_build" / "cache")
os.environ["NO_PROXY"] = "127.0.0.1"
os.environ["MPLBACKEND"] = "Agg"
warnings.filterwarnings("ignore", message="this is a sandbox")

from qoderdata import __version__  # noqa: E402 - the settings above come first

project = "qoderdata"
copyright = "the authors of qoderdata; Apache-2.0"  # noqa: A001 - Sphinx's name for it
version = release = __version__
language = "en"

extensions = [
    "myst_nb",
    "numpydoc",
    "reference_pages",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "examples", "gallery/**.ipynb"]
smartquotes = False  # two hyphens stay two: options are written with them

# -- Markdown and notebooks ---------------------------------------------------------------------------------------
myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # the notebooks' committed outputs are checked by the tests
nb_ipywidgets_js: dict[str, dict[str, str]] = {}  # no script from elsewhere
nb_merge_streams = True
# The interactive chart of notebook 4 has a picture beside it, which is shown here.
suppress_warnings = ["mystnb.unknown_mime_type"]
copybutton_exclude = ".linenos, .gp, .go"

# -- Docstrings ---------------------------------------------------------------------------------------------------
default_role = "autolink"
autosummary_generate = False
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
numpydoc_show_class_members = False

# -- Gallery ------------------------------------------------------------------------------------------------------
sphinx_gallery_conf = {
    "examples_dirs": ["examples"],
    "gallery_dirs": ["gallery"],
    "filename_pattern": r"/(plot|table)_",
    "backreferences_dir": "reference/api/examples",
    "doc_module": ("qoderdata",),
    "inspect_global_variables": False,
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_memory": False,
    "min_reported_time": 3600,
    "show_signature": False,
    "write_computation_times": False,
    "remove_config_comments": True,
    "image_srcset": ["2x"],
    "within_subsection_order": "FileNameSortKey",
    "ignore_repr_types": r"matplotlib\.(axes|text|image|container)|list",
    "thumbnail_size": (520, 320),
}

# -- Pages --------------------------------------------------------------------------------------------------------
html_theme = "pydata_sphinx_theme"
html_title = "qoderdata"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_favicon = "_static/favicon.svg"
html_extra_path = ["_build/extra"]  # `reference_pages` writes a report there
(FOLDER / "_build" / "extra").mkdir(parents=True, exist_ok=True)
html_copy_source = False
html_use_index = False  # the reference lists all names
html_show_sourcelink = False
html_show_sphinx = False
html_theme_options = {
    "logo": {"text": "qoderdata"},
    "navbar_align": "left",
    "header_links_before_dropdown": 7,
    "navbar_end": ["theme-switcher"],
    "show_toc_level": 2,
    "search_as_you_type": True,
    "navigation_with_keys": False,
    "search_bar_text": "Search, such as: cost by team",
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_context = {"default_mode": "auto"}
html_sidebars = {"index": [], "glossary": []}
