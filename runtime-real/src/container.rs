//! How much memory, and how many threads, the control groups of this process leave it: a container's limits, of version 1 or 2.
//!
//! A process is in one group of each hierarchy, and each group above it has a limit of its own, all of which hold. The kernel says
//! which groups (`/proc/self/cgroup`) and where their files are (`/proc/self/mountinfo`); inside a container the mount may begin
//! at the container's own group, so that the path to it is no path below the mount.

use std::{
    fs,
    path::{Component, Path, PathBuf},
};

/// The least limit of bytes that holds for this process; `None` if there is none, or the system does not say.
#[must_use]
pub fn memory_limit() -> Option<u64> {
    MEMORY.limit_below(Path::new("/"))
}

/// The least limit of threads that holds for this process, and for whatever else is in its groups; `None` as above.
#[must_use]
pub fn threads_limit() -> Option<u64> {
    THREADS.limit_below(Path::new("/"))
}

/// What a control group limits.
struct Controller {
    /// Its name in version 1, where it has a hierarchy of its own.
    name: &'static str,
    /// Files of a group that hold a limit, in version 1 and in version 2.
    files: [&'static [&'static str]; 2],
}

/// Above `memory.high` a process is slowed down until it is of no use to a measurement.
const MEMORY: Controller =
    Controller { name: "memory", files: [&["memory.limit_in_bytes"], &["memory.max", "memory.high"]] };

const THREADS: Controller = Controller { name: "pids", files: [&["pids.max"], &["pids.max"]] };

impl Controller {
    /// The least limit, of the files below `root`.
    fn limit_below(&self, root: &Path) -> Option<u64> {
        let read = |path: &Path| fs::read_to_string(root.join(path.strip_prefix("/").unwrap_or(path))).ok();
        let groups = read(Path::new("/proc/self/cgroup"))?;
        let mounts = read(Path::new("/proc/self/mountinfo"))?;
        let files = mounts.lines().filter_map(|line| Mount::parse(line, self.name)).flat_map(|mount| {
            let folders = group(&groups, mount.kind, self.name).map(|group| mount.folders(group)).unwrap_or_default();
            let names = match mount.kind {
                Kind::Own => self.files[0],
                Kind::Unified => self.files[1],
            };
            folders.into_iter().flat_map(move |folder| names.iter().map(move |file| folder.join(file)))
        });
        // `max` stands for no limit in version 2; version 1 gives a number that no machine has.
        files.filter_map(|file| read(&file)?.trim().parse().ok()).min()
    }
}

/// Which hierarchy of groups limits something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Version 1, where each controller has a hierarchy of its own.
    Own,
    /// Version 2, the one hierarchy of all controllers.
    Unified,
}

/// The path of the process's group in a hierarchy: of `4:memory:/a/b`, or `0::/a/b`, what stands last.
fn group<'a>(groups: &'a str, kind: Kind, name: &str) -> Option<&'a Path> {
    groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let found = match kind {
            Kind::Own => controllers.split(',').any(|controller| controller == name),
            Kind::Unified => controllers.is_empty(),
        };
        found.then(|| Path::new(path))
    })
}

/// A place where groups can be looked at.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    kind: Kind,
    /// The group that stands at the place.
    root: PathBuf,
    place: PathBuf,
}

impl Mount {
    /// Of a line such as `36 35 0:31 /root /sys/fs/cgroup/memory rw,nosuid shared:9 - cgroup cgroup rw,memory`.
    fn parse(line: &str, name: &str) -> Option<Self> {
        let (mount, system) = line.split_once(" - ")?;
        let mut system = system.split(' ');
        let (kind, options) = (system.next()?, system.nth(1).unwrap_or_default());
        let kind = match kind {
            "cgroup2" => Kind::Unified,
            "cgroup" if options.split(',').any(|option| option == name) => Kind::Own,
            _ => return None,
        };
        let mut fields = mount.split(' ').skip(3);
        let (root, place) = (unescaped(fields.next()?), unescaped(fields.next()?));
        Some(Self { kind, root, place })
    }

    /// The folders of a group and of those above it, as far as they can be looked at.
    fn folders(&self, group: &Path) -> Vec<PathBuf> {
        // A group beyond the mount, or outside of the namespace (`/../other`): all that is there to look at is the mount.
        let below = group.strip_prefix(&self.root).ok();
        let below = below.filter(|path| path.components().all(|part| matches!(part, Component::Normal(_))));
        below.unwrap_or(Path::new("")).ancestors().map(|path| self.place.join(path)).collect()
    }
}

/// A path of which the kernel wrote blanks and the like as `\040`.
fn unescaped(text: &str) -> PathBuf {
    let mut parts = text.split('\\');
    let mut plain = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        match part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                plain.push(byte);
                plain.extend_from_slice(&part.as_bytes()[3..]);
            }
            None => plain.extend([b"\\", part.as_bytes()].concat()),
        }
    }
    PathBuf::from(String::from_utf8_lossy(&plain).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// The limit of memory found where the kernel would show these files.
    fn found(files: &[(&str, &str)]) -> Option<u64> {
        found_by(&MEMORY, files)
    }

    fn found_by(controller: &Controller, files: &[(&str, &str)]) -> Option<u64> {
        let root = tempfile::tempdir().expect("a folder can be made");
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("files lie in folders")).expect("a folder can be made");
            fs::write(path, text).expect("a file can be written");
        }
        controller.limit_below(root.path())
    }

    const V1: (&str, &str) = (
        "proc/self/mountinfo",
        "24 1 254:0 / / rw - ext4 /dev/vda rw\n\
         25 24 0:22 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
         26 24 0:23 / /sys/fs/cgroup/memory rw,relatime shared:7 - cgroup cgroup rw,memory\n",
    );
    const V2: (&str, &str) =
        ("proc/self/mountinfo", "30 24 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n");
    const ROOT_V1: (&str, &str) = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");

    #[test]
    fn the_first_version_is_read_along_the_own_path() {
        let own = ("proc/self/cgroup", "5:cpu:/elsewhere\n4:memory:/a/b\n0::/\n");
        let limit = ("sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "419430400\n");
        assert_eq!(found(&[V1, own, ROOT_V1, limit]), Some(400 * MIB));
        // A group above holds as well, whatever those beside it say.
        let above = ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "104857600\n");
        let beside = ("sys/fs/cgroup/memory/elsewhere/memory.limit_in_bytes", "1\n");
        assert_eq!(found(&[V1, own, ROOT_V1, limit, above, beside]), Some(100 * MIB));
        let with_others = ("proc/self/cgroup", "4:cpu,memory:/a\n");
        assert_eq!(found(&[V1, with_others, above]), Some(100 * MIB));
    }

    #[test]
    fn the_second_version_is_read_along_the_own_path() {
        let own = ("proc/self/cgroup", "0::/slice/my service\n");
        let none = ("sys/fs/cgroup/slice/my service/memory.max", "max\n");
        assert_eq!(found(&[V2, own, none]), None);
        let above = ("sys/fs/cgroup/slice/memory.max", "536870912\n");
        assert_eq!(found(&[V2, own, none, above]), Some(512 * MIB));
        let slowed = ("sys/fs/cgroup/slice/my service/memory.high", "268435456\n");
        assert_eq!(found(&[V2, own, none, above, slowed]), Some(256 * MIB));
    }

    #[test]
    fn threads_are_limited_by_groups_of_their_own() {
        let mounts = (
            "proc/self/mountinfo",
            "26 24 0:23 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
             27 24 0:24 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n",
        );
        let own = ("proc/self/cgroup", "4:memory:/a\n3:pids:/a/b\n");
        let beside = ("sys/fs/cgroup/memory/a/pids.max", "1\n");
        let above = ("sys/fs/cgroup/pids/a/pids.max", "512\n");
        let unlimited = ("sys/fs/cgroup/pids/a/b/pids.max", "max\n");
        assert_eq!(found_by(&THREADS, &[mounts, own, unlimited, beside]), None);
        assert_eq!(found_by(&THREADS, &[mounts, own, above, unlimited, beside]), Some(512));
        let unified = ("sys/fs/cgroup/slice/pids.max", "100\n");
        assert_eq!(found_by(&THREADS, &[V2, ("proc/self/cgroup", "0::/slice\n"), unified]), Some(100));
    }

    /// A container without a namespace of groups: the kernel gives the path outside, the mount begins at the own group.
    #[test]
    fn a_mount_may_begin_at_the_own_group() {
        let limit = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "419430400\n");
        let own = ("proc/self/cgroup", "4:memory:/docker/abc\n");
        let mount = |root: &str| format!("26 24 0:23 {root} /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n");
        for root in ["/docker/abc", "/docker", "/other"] {
            let mount = mount(root);
            assert_eq!(found(&[("proc/self/mountinfo", &mount), own, limit]), Some(400 * MIB), "{root}");
        }
        let inner = ("proc/self/cgroup", "4:memory:/docker/abc/inner\n");
        let tighter = ("sys/fs/cgroup/memory/inner/memory.limit_in_bytes", "104857600\n");
        let mount = mount("/docker/abc");
        assert_eq!(found(&[("proc/self/mountinfo", &mount), inner, limit, tighter]), Some(100 * MIB));
        // Outside of the namespace there is nothing to look at but the mount.
        let outside = ("proc/self/cgroup", "0::/../../etc\n");
        let unified = ("sys/fs/cgroup/memory.max", "419430400\n");
        assert_eq!(found(&[V2, outside, unified, ("etc/memory.max", "1\n")]), Some(400 * MIB));
    }

    #[test]
    fn whatever_stands_there_is_no_reason_to_panic() {
        let own = ("proc/self/cgroup", "garbage\n::\n4:memory\n0::/x\n");
        let mounts =
            ("proc/self/mountinfo", "\n - \n1 2 3 - cgroup2\n30 24 0:26 /\\0 /sys\\9\\040b - cgroup2 cgroup2 rw\n");
        assert_eq!(found(&[own, mounts]), None);
        assert_eq!(found(&[own]), None);
        assert_eq!(found(&[]), None);
        assert_eq!(unescaped("/a\\040b\\\\c"), Path::new("/a b\\\\c"));
        let odd = ("sys/fs/cgroup/x/memory.max", "lots\n");
        assert_eq!(found(&[V2, own, odd]), None);
    }
}
