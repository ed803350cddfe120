"""Where settings, users and collections come from; every reading error names its file and line."""
