"""Settings of the course's website, for Sphinx; course_utils/classroom/site.py runs it."""

project = "Spectral normalization for GANs"
copyright = "the authors of the course, MIT licence"
html_title = project
language = "en"

extensions = ["myst_nb"]
nb_execution_mode = "off"  # what the pages show is what the notebooks hold
nb_merge_streams = True
nb_code_prompt_show = "Show the code"
nb_code_prompt_hide = "Hide the code"
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_dmath_double_inline = True  # a formula may follow its sentence without an empty line
myst_heading_anchors = 4
myst_update_mathjax = False
suppress_warnings = ["myst.header"]

html_theme = "sphinx_book_theme"
html_theme_options = {"use_download_button": False, "use_fullscreen_button": False, "navbar_persistent": []}
html_context = {"default_mode": "auto"}  # light or dark, as the reader's system is
html_favicon = "favicon.svg"
html_static_path = ["site.css", "frames.js"]
html_css_files = ["site.css"]
html_js_files = [("frames.js", {"defer": "defer"})]
html_copy_source = False
html_show_search_summary = False  # it begins with the names of the page's buttons
html_show_sourcelink = False

# The copy of MathJax that the decks use (version 2), which draws formulae without fonts.
mathjax_path = "../slides/mathjax/MathJax.js"
mathjax2_config = {
    "jax": ["input/TeX", "output/SVG"],
    "extensions": ["tex2jax.js", "AssistiveMML.js"],
    "messageStyle": "none",
    "showMathMenu": False,
    "TeX": {"extensions": ["AMSmath.js", "AMSsymbols.js"], "equationNumbers": {"autoNumber": "none"}},
    "tex2jax": {"inlineMath": [["\\(", "\\)"]], "displayMath": [["\\[", "\\]"]]},
    "SVG": {"font": "STIX-Web", "useFontCache": False, "useGlobalCache": False, "linebreaks": {"automatic": False}},
}  # fmt: skip


def setup(app):
    """Hand formulae to MathJax as they are written: \\tag would be refused in the environment that Sphinx puts around."""
    from docutils import nodes

    def as_written(app, doctree):
        for formula in doctree.findall(nodes.math_block):
            formula["nowrap"] = True
            formula["classes"].append("amsmath")

    app.connect("doctree-read", as_written)
