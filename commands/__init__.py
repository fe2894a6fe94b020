"""The commands, a file for each stage. May import everything; imports the library when a command needs it."""
