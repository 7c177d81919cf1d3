"""Writing files: checks before the work, atomic replacement, and errors of disks under one type.

:mod:`.checks` tries an output place before anything is computed, :mod:`.atomic` writes files and directories that are
complete or absent, :mod:`.temporary` owns their names until then, :mod:`.disk_errors` names the file that a full or
read-only disk did not take, and :mod:`.disk_space` states sizes and free space.
"""

from .atomic import (
    atomic_directory,
    atomic_write,
    final_names,
    link_or_copy,
    replace_directory,
    sync_folder,
    write_json,
    write_text,
)
from .checks import check_is_no_input, check_output_directory, check_output_file, check_replaceable
from .disk_errors import output_errors
from .disk_space import describe_space, format_bytes, free_bytes
from .temporary import remove_leftovers, scratch_directory, temporary_directory, temporary_file

__all__ = [
    "atomic_directory",
    "atomic_write",
    "check_is_no_input",
    "check_output_directory",
    "check_output_file",
    "check_replaceable",
    "describe_space",
    "final_names",
    "format_bytes",
    "free_bytes",
    "link_or_copy",
    "output_errors",
    "remove_leftovers",
    "replace_directory",
    "scratch_directory",
    "sync_folder",
    "temporary_directory",
    "temporary_file",
    "write_json",
    "write_text",
]
