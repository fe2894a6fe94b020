"""What lies beside images and is none: files of operating systems and network drives, and documents."""

from __future__ import annotations

LIST_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
_LITTER = {
    "@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "$recycle.bin", "recycler",
    "system volume information", "lost+found", "__macosx", "__pycache__", "thumbs.db", "ehthumbs.db",
    "desktop.ini", "icon\r",
}  # fmt: skip
_DOCUMENT_NAMES = {
    "readme", "license", "licence", "copying", "authors", "changelog", "citation", "notice", "contributing", "makefile",
    "dockerfile", "checksums", "md5sums", "sha256sums",
}  # fmt: skip
_DOCUMENT_SUFFIXES = {
    "csv", "tsv", "jsonl", "ndjson", "parquet",
    "md", "txt", "rst", "pdf", "doc", "docx", "odt", "rtf", "tex", "bib", "html", "htm", "xml", "json",
    "yaml", "yml", "toml", "ini", "cfg", "log", "xls", "xlsx", "ods", "py", "ipynb", "sh", "r", "m", "names",
    "md5", "sha256", "url", "data", "cff",
}  # fmt: skip


def is_litter(name: str) -> bool:
    """Return whether an operating system, an editor or a network drive leaves files or folders of this name behind."""
    return name.startswith(".") or name.lower() in _LITTER


def is_document(name: str) -> bool:
    """Return whether a file of this name is a document or a list, and not a damaged image."""
    stem, dot, suffix = name.lower().rpartition(".")
    return bool(dot and suffix in _DOCUMENT_SUFFIXES) or (stem if dot else suffix) in _DOCUMENT_NAMES


def is_list(name: str) -> bool:
    """Return whether a file of this name may list images with their labels."""
    return name.lower().endswith((*LIST_SUFFIXES, "labels.json", "annotations.json"))
