//! Which node is the camera that was there before: numbers change when it is plugged in again.
//!
//! In: `/sys/class/video4linux` and udev's links in `/dev/v4l`. Out: [`Node`]s and the [`Identity`] of one. Reads small
//! files only and opens no device, so it can be repeated while a camera is away. Works without udev too: then the
//! socket, as the kernel names it, stands for the camera.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A video node that is there now. It may be one that does not capture.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// `/dev/video0`
    pub path: PathBuf,
    /// The device's name; empty if unknown.
    pub name: String,
    /// Which of the device's nodes this is: a USB camera has one for pictures and one for metadata.
    pub index: u32,
    /// The socket or the platform device, as the kernel names it.
    pub port: Option<PathBuf>,
    /// The links to it, by-id before by-path.
    pub stable_ids: Vec<PathBuf>,
}

impl Node {
    fn by_id(&self) -> Option<&PathBuf> {
        let by_id = |link: &&PathBuf| link.parent().is_some_and(|dir| dir.ends_with("by-id"));
        self.stable_ids.iter().find(by_id)
    }
}

/// All video nodes, in the order of their numbers. `root` is `/` but in tests.
pub fn scan(root: &Path) -> Vec<Node> {
    let class = root.join("sys/class/video4linux");
    let dev = root.join("dev");
    let numbers: BTreeSet<u32> = names_in(&class)
        .chain(names_in(&dev))
        .filter_map(|name| name.strip_prefix("video")?.parse().ok())
        .collect();
    let links: Vec<(PathBuf, PathBuf)> = ["by-id", "by-path"]
        .into_iter()
        .flat_map(|kind| {
            let dir = dev.join("v4l").join(kind);
            let mut names: Vec<_> = names_in(&dir).collect();
            names.sort_unstable();
            names.into_iter().map(move |name| dir.join(name))
        })
        .filter_map(|link| Some((fs::canonicalize(&link).ok()?, link)))
        .collect();
    let node = |number: u32| {
        let path = dev.join(format!("video{number}"));
        // The class may know it before the node is made, and after it is gone.
        let real = fs::canonicalize(&path).ok()?;
        let class = class.join(format!("video{number}"));
        let read = |file| fs::read_to_string(class.join(file)).unwrap_or_default();
        Some(Node {
            name: read("name").trim().into(),
            index: read("index").trim().parse().unwrap_or(0),
            port: fs::canonicalize(class.join("device")).ok(),
            stable_ids: links
                .iter()
                .filter(|(target, _)| *target == real)
                .map(|(_, link)| link.clone())
                .collect(),
            path,
        })
    };
    numbers.into_iter().filter_map(node).collect()
}

fn names_in(dir: &Path) -> impl Iterator<Item = String> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
}

/// What a camera is known by after it was open once.
#[derive(Debug, Clone, PartialEq)]
pub struct Identity {
    node: Node,
    by_id: Option<PathBuf>,
}

impl Identity {
    /// The identity of a node among all that are there.
    pub fn of(node: &Node, all: &[Node]) -> Self {
        // Twins without serial numbers share one by-id link, which points at either.
        let twin = |n: &&Node| n.path != node.path && n.name == node.name && n.index == node.index;
        let unique = all.iter().find(twin).is_none();
        Self {
            by_id: node.by_id().filter(|_| unique).cloned(),
            node: node.clone(),
        }
    }

    /// The camera's name, or its node if it has none.
    pub fn name(&self) -> String {
        match self.node.name.as_str() {
            "" => self.node.path.display().to_string(),
            name => name.into(),
        }
    }

    /// The node at which this camera is now: in the same socket, or elsewhere by its id.
    pub fn find<'a>(&self, nodes: &'a [Node]) -> Option<&'a Node> {
        let same = |n: &&Node| n.name == self.node.name && n.index == self.node.index;
        let here = |n: &&Node| match &self.node.port {
            Some(_) => n.port == self.node.port,
            None => n.path == self.node.path,
        };
        let by_id = |n: &&Node| self.by_id.is_some() && n.by_id() == self.by_id.as_ref();
        nodes
            .iter()
            .find(|n| same(n) && here(n))
            .or_else(|| nodes.iter().find(by_id))
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    struct Machine(tempfile::TempDir);

    impl Machine {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn plug(&self, number: u32, index: u32, name: &str, port: &str, by_id: Option<&str>) {
            let root = self.0.path();
            let port_dir = root.join("sys/devices").join(port);
            let class = root.join(format!("sys/class/video4linux/video{number}"));
            let dev = root.join("dev");
            for dir in [
                &port_dir,
                &class,
                &dev.join("v4l/by-id"),
                &dev.join("v4l/by-path"),
            ] {
                fs::create_dir_all(dir).unwrap();
            }
            fs::write(class.join("name"), format!("{name}\n")).unwrap();
            fs::write(class.join("index"), format!("{index}\n")).unwrap();
            symlink(&port_dir, class.join("device")).unwrap();
            fs::write(dev.join(format!("video{number}")), "").unwrap();
            let links = [
                by_id.map(|id| format!("by-id/{id}")),
                Some(format!("by-path/{port}-video-index{index}")),
            ];
            for link in links.into_iter().flatten() {
                let link = dev.join("v4l").join(link);
                let _ = fs::remove_file(&link);
                symlink(format!("../../video{number}"), link).unwrap();
            }
        }

        fn unplug(&self, number: u32) {
            let dev = self.0.path().join("dev");
            let node = dev.join(format!("video{number}"));
            // udev takes its links away.
            for kind in ["by-id", "by-path"] {
                let dir = dev.join("v4l").join(kind);
                for link in names_in(&dir).map(|name| dir.join(name)) {
                    if fs::canonicalize(&link).ok() == fs::canonicalize(&node).ok() {
                        fs::remove_file(link).unwrap();
                    }
                }
            }
            fs::remove_file(node).unwrap();
            let class = format!("sys/class/video4linux/video{number}");
            fs::remove_dir_all(self.0.path().join(class)).unwrap();
        }

        fn scan(&self) -> Vec<Node> {
            scan(self.0.path())
        }
    }

    #[test]
    fn nodes_are_found_with_their_links() {
        let m = Machine::new();
        m.plug(10, 0, "Other", "usb2", None);
        m.plug(0, 0, "HD Webcam", "usb1", Some("usb-HD-video-index0"));
        m.plug(1, 1, "HD Webcam", "usb1", Some("usb-HD-video-index1"));
        let nodes = m.scan();
        let names: Vec<_> = nodes
            .iter()
            .map(|n| n.path.file_name().unwrap().to_str().unwrap())
            .collect();
        assert_eq!(names, ["video0", "video1", "video10"]);
        assert_eq!((nodes[0].name.as_str(), nodes[1].index), ("HD Webcam", 1));
        let links: Vec<_> = nodes[0]
            .stable_ids
            .iter()
            .map(|l| l.strip_prefix(m.0.path()).unwrap().to_str().unwrap())
            .collect();
        assert_eq!(
            links,
            [
                "dev/v4l/by-id/usb-HD-video-index0",
                "dev/v4l/by-path/usb1-video-index0"
            ]
        );
        assert!(scan(Path::new("/nonexistent")).is_empty());
    }

    #[test]
    fn a_camera_is_found_again_under_another_number() {
        for by_id in [Some("usb-HD_123-video-index0"), None] {
            let m = Machine::new();
            m.plug(0, 0, "HD Webcam", "usb1", by_id);
            let nodes = m.scan();
            let identity = Identity::of(&nodes[0], &nodes);
            m.unplug(0);
            assert_eq!(identity.find(&m.scan()), None);
            // Its number was given to another camera, and its metadata node came first.
            m.plug(0, 0, "Other", "usb2", None);
            m.plug(1, 1, "HD Webcam", "usb1", None);
            assert_eq!(identity.find(&m.scan()), None);
            m.plug(2, 0, "HD Webcam", "usb1", by_id);
            let nodes = m.scan();
            assert!(identity.find(&nodes).unwrap().path.ends_with("video2"));
        }
    }

    #[test]
    fn in_another_socket_only_its_id_tells() {
        let m = Machine::new();
        m.plug(0, 0, "HD Webcam", "usb1", Some("usb-HD_123-video-index0"));
        let nodes = m.scan();
        let identity = Identity::of(&nodes[0], &nodes);
        m.unplug(0);
        m.plug(3, 0, "HD Webcam", "usb7", None);
        assert_eq!(identity.find(&m.scan()), None);
        m.unplug(3);
        m.plug(4, 0, "HD Webcam", "usb7", Some("usb-HD_123-video-index0"));
        assert!(identity.find(&m.scan()).unwrap().path.ends_with("video4"));
    }

    #[test]
    fn a_twin_is_not_taken_for_the_camera() {
        let m = Machine::new();
        m.plug(0, 0, "HD Webcam", "usb1", Some("usb-HD-video-index0"));
        m.plug(2, 0, "HD Webcam", "usb2", None);
        let nodes = m.scan();
        let identity = Identity::of(&nodes[0], &nodes);
        m.unplug(0);
        // udev gives the shared link to the one that is left.
        m.unplug(2);
        m.plug(2, 0, "HD Webcam", "usb2", Some("usb-HD-video-index0"));
        assert_eq!(identity.find(&m.scan()), None);
    }
}
