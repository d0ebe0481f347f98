"""Remedies in the words of a terminal: the command or the flag that helps.

The server passes ``Remedy`` on as data instead.
"""

from typing import Final

from pixsift.errors import PixsiftError, Remedy, RemedyCode
from pixsift.text import printable

WORDS: Final[dict[RemedyCode, str]] = {
    "audit": "run pixsift audit",
    "calibrate": "run pixsift calibrate with this model",
    "install_localstack": "{how} (not needed against AWS)",
    "check_aws": "pixsift up; or deploy the events stack and check {variable}, AWS_ENDPOINT_URL, "
    "AWS_DEFAULT_REGION and the credentials",
    "check_database": "check PIXSIFT_DATABASE_URL and the server",
    "choose_model": "unset PIXSIFT_MODEL, or name a real model",
    "create_collection": "pixsift collection create NAME --source {source}",
    "curate_first": "pixsift curate DIR",
    "enable_versioning": "aws s3api put-bucket-versioning --bucket {bucket} "
    "--versioning-configuration Status=Enabled",
    "grant": "grant that right to the role of PIXSIFT_DATABASE_URL",
    "install_extra": "pip install 'pixsift[{extra}]'",
    "list_collections": "pixsift collection list names the collections",
    "list_snapshots": "pixsift snapshot list names the snapshots",
    "migrate": "run pixsift migrate",
    "name_camera": "name the attribute with --by, tell it from the keys with pixsift collection "
    "set {collection} --key-pattern, or add it with pixsift attributes import",
    "name_collection": "name one with --collection",
    "name_ledger": "name a folder for the ledger with --ledger",
    "name_model": "PIXSIFT_MODEL names the model; docs/models.md lists them",
    "name_output": "name an empty folder elsewhere with --out",
    "name_photos": "name a folder with some by --images",
    "name_source": "name a source of a collection; pixsift collection list names them",
    "protect_again": "bring them into this space (pixsift reembed), or declare the set anew: "
    "pixsift protect remove, pixsift protect add",
    "read_decoder_message": "read the decoder's own message above; docs/decoding.md",
    "redecide": "pixsift redecide {collection} --preset {preset} decides them again",
    "reembed": "set PIXSIFT_MODEL to the model of that space and run pixsift reembed {collection}",
    "run_both": "keep the consumers of both spaces running, and run the command again",
    "repair_state": "repair that, then pixsift up",
    "restart_loop": "run pixsift down, and then pixsift up",
    "restart_services": "pixsift up restarts it and keeps everything else",
    "restart_saved_loop": "run pixsift down, and then pixsift up, which brings back the objects as "
    "the last pixsift down saved them",
    "set_aws": "set {variable}, or start the local loop: pixsift up",
    "set_database_url": "set PIXSIFT_DATABASE_URL, or start the local loop: pixsift up",
    "skip_unknown": "--skip-unknown leaves them out",
    "start_loop_or_not": "pixsift up (not needed against AWS)",
    "start_loop": "run pixsift up",
    "take_at_most": "add --at-most to take all there are",
    "take_over": "if no process is building it any more, discard it with --take-over",
    "use_its_model": "set PIXSIFT_MODEL to its model, which pixsift collection show {collection} "
    "names",
    "use_seccomp": "run the consumer on Linux, with libseccomp installed",
}


def in_words(remedy: Remedy) -> str:
    """The command or the flag."""
    return WORDS[remedy.code].format_map(remedy.arguments)


def one_line(error: PixsiftError) -> str:
    """What is wrong and what to do about it, as one line that may be shown and logged."""
    return printable(f"{error}: {in_words(error.remedy)}" if error.remedy else str(error))
