"""A step that is not finite: what to do about it, where it began, and the page that is left of it."""
