"""The packaged Vega scripts -> .dvc/plots_page.html, the template with which `dvc plots show` works offline.

DVC's own template loads the scripts from another host at each viewing. setup_venv.py calls this once.
"""

from pathlib import Path

import vl_convert

PAGE = Path(__file__).resolve().parent.parent / ".dvc" / "plots_page.html"  # named in .dvc/config

TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
    <meta charset="utf-8">
    {refresh_tag}
    <title>Plots</title>
    <script>(() => {VEGA})();</script>
    <style>
        body { font-family: system-ui, sans-serif; margin: 2rem; }
        img { max-width: 100%; }
    </style>
</head>
<body>
    {plot_divs}
</body>
</html>
"""


def main() -> None:
    scripts = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    PAGE.write_text(TEMPLATE.replace("VEGA", scripts), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
