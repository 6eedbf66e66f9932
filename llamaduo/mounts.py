"""Which file system a path lies on, as /proc/mounts tells; on systems without it nothing is known."""

from __future__ import annotations

from pathlib import Path

NETWORK = frozenset(
    {
        "nfs", "nfs3", "nfs4", "lustre", "cifs", "smb3", "smbfs", "9p", "ceph", "beegfs", "gpfs", "glusterfs",
        "pvfs2", "orangefs", "afs", "ocfs2", "gfs2", "panfs", "wekafs", "virtiofs", "fuse.glusterfs", "fuse.sshfs",
        "fuse.rclone", "fuse.ceph-fuse", "fuse.s3fs", "fuse.gcsfuse", "fuse.juicefs",
    }
)  # fmt: skip
"""File systems that several machines may share, where a lock or shared memory needn't mean what it means on a disk."""


def network_file_system(path: Path, mounts: Path = Path("/proc/mounts")) -> str | None:
    """Return the type of the network file system that a path lies on, or will lie on; None if it is a local one."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
        place = path.expanduser().resolve()
    except OSError:
        return None
    found = ("", "")
    for line in lines:
        fields = line.split()
        if len(fields) > 2:
            point = fields[1].replace("\\040", " ")
            if len(point) >= len(found[0]) and place.is_relative_to(point):
                found = (point, fields[2])
    return found[1] if found[1] in NETWORK else None
