"""Run by every kernel that `make test` starts: a warning from a notebook's cell, or from the
package as it serves one, fails the cell. The Makefile puts this into IPython's startup folder."""

import warnings

warnings.filterwarnings("error", module=r"__main__|piaa_utils")
