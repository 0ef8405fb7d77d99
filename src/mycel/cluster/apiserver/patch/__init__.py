"""The four ways to change an object by PATCH. Pure: (object, patch) → object, or an ApiFault that says why not."""
