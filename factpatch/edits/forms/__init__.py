"""Forms of edit rows: any published form, or a user's own by a map of columns, as native fields.

Nothing that a row holds vanishes without a word: it is read, named as unused, or the row is refused.
"""

from factpatch.edits.forms.fields import FIELDS
from factpatch.edits.forms.known_forms import COLUMNS, Columns
from factpatch.edits.forms.paths import find
from factpatch.edits.forms.reading import FormReader, Reading, seen_fields

__all__ = ["COLUMNS", "FIELDS", "Columns", "FormReader", "Reading", "find", "seen_fields"]
