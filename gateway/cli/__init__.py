"""The command `meshyard`: a module for each command, light to import; the work is imported when a command runs."""
